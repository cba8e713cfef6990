"""Keeps Ray running for the service: starts it, finds it again, notices its end, and starts it again.

The service's process is not connected to Ray (see `ray_agent`), so it survives the end of Ray and can report it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.actors.disk_room import full_for_ray
from cluster.service.changes import logged
from cluster.service.home import Home
from cluster.service.jobs import Jobs
from cluster.service.ray_head import RayHead, ray_environment
from cluster.service.records import JobRecord
from cluster.service.refusals import StoreTrouble
from stages.errors import NotEnoughResources, UserMistake

_LOOK_EVERY_S = 0.25
_CONNECT_S = 90.0
_END_RUNNERS_S = 10.0
_AGAIN_S = 1.0
_PING_EVERY_S, _SILENT_S = 10.0, 60.0
_PAUSE_S = (0.5, 1.0, 2.0, 5.0, 10.0)  # before the next try
_log = logging.getLogger(__name__)


class RayKeeper:
    """Connects the service to the Ray cluster at `address` or, if that is None, to its own with `cpus` CPUs. `state` is
    a text for callers."""

    def __init__(self, home: Home, *, cpus: int, address: str | None) -> None:
        self._home, self._cpus, self.address = home, cpus, address
        self._head: RayHead | None = None
        self._agent: asyncio.subprocess.Process | None = None
        self._jobs: Jobs | None = None
        self._session: str | None = None
        self._starting: asyncio.Future[RayHead] | None = None
        self._lost: set[tuple[str, int]] = set()
        self._retries: set[asyncio.Task[None]] = set()
        self.state = "starting"
        self._answered = asyncio.Event()
        self.up = asyncio.Event()
        self.failed: UserMistake | None = None
        """Why Ray cannot start on this machine; set only before it was up for the first time."""

    @property
    def own(self) -> bool:
        """Whether the service has its own Ray cluster instead of joining another one."""
        return self.address is None

    @property
    def ray_address(self) -> str:
        """The address of Ray; "" before it is known."""
        return self.address or ("" if self._head is None else self._head.address)

    @property
    def folder(self) -> str:
        """The folder of the service's own Ray; "" before it has started, and for a joined cluster."""
        return "" if self._head is None else self._head.folder

    def send(self, command: Mapping[str, Any]) -> None:
        """Send a command to the agent. If no agent is connected, drop it: `Jobs.connected` sends it again. Raises
        OSError for a launch if the disk has no room for Ray's files, because the new processes would die."""
        if command["do"] == "launch" and self.folder and full_for_ray(self.folder):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.folder)
        agent = self._agent
        if agent is not None and agent.stdin is not None and not agent.stdin.is_closing():
            agent.stdin.write((json.dumps(dict(command)) + "\n").encode())

    async def agent_answers(self, within_s: float) -> bool:
        """Whether the agent answers a ping within `within_s` seconds."""
        self._answered.clear()
        self.send({"do": "ping"})
        try:
            async with asyncio.timeout(within_s):
                return await self._answered.wait()
        except TimeoutError:
            return False

    async def keep(self, jobs: Jobs) -> None:
        """Keep Ray running for as long as the service runs."""
        self._jobs = jobs
        failures = 0
        while True:
            try:
                address, token = await self._find_ray(jobs)
                await self._serve(jobs, address, token)
                failures = 0
            except TimeoutError:  # Ray may only be slow, and its jobs go on, so this does not end it
                late = f"Ray at {self.ray_address} did not answer within {_CONNECT_S:g} s"
                self.state = f"not connected: {late}; the service tries again, and `pipetrain down` ends it"
                _log.warning("Ray: %s", self.state)
                failures += 1
            except (UserMistake, OSError) as error:
                told = error if isinstance(error, UserMistake) else NotEnoughResources(_of_the_host(error))
                if not self.up.is_set() and self.own:
                    self.failed = told
                    self.up.set()
                    return
                self.state = f"not connected: {told}"
                _log.warning("Ray: %s", told)
                failures += 1
            except Exception:
                _log.exception("the connection to Ray broke")
                failures += 1
            finally:
                jobs.cluster_is(())
                await self._end_agent()
            if failures:
                await asyncio.sleep(_PAUSE_S[min(failures, len(_PAUSE_S)) - 1])

    async def end(self) -> None:
        """End the agent and the service's own Ray, even one that is still starting. A joined Ray goes on."""
        await self._end_agent()
        head = (self._head or RayHead.left_by_another(self._home)) if self.own else None
        if head is not None:  # known in memory, in case the home with ray.json was moved or deleted
            await asyncio.to_thread(head.end, self._home)
        if self._starting is not None:
            with contextlib.suppress(Exception):
                self._head = await self._starting
                await asyncio.to_thread(self._head.end, self._home)

    async def end_runners(self, jobs: Sequence[JobRecord]) -> None:
        """End the runners of these jobs, in a Ray that goes on without the service."""
        wanted = {(record.id, record.attempt) for record in jobs}
        for job, attempt in wanted:
            self.send({"do": "end", "job": job, "attempt": attempt})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_RUNNERS_S):
                while not wanted <= self._lost:
                    await asyncio.sleep(0.05)

    async def _find_ray(self, jobs: Jobs) -> tuple[str, str | None]:
        if self.address is not None:
            left = RayHead.left_by_another(self._home)
            if left is not None:
                await asyncio.to_thread(left.end, self._home)
                await jobs.cluster_lost("its Ray was ended: the service joined another one")
            self._session = (self._home.read(self._home.ray_file) or {}).get("session_name")
            return self.address, os.environ.get("RAY_AUTH_TOKEN")
        head = self._head or RayHead.left_by_another(self._home)
        if head is None or not head.alive():
            if head is not None:
                again = (
                    "Ray was lost: one of its processes died"
                    if self.up.is_set()
                    else "Ray ended while no service was up"
                )
                self.state = f"{again}; starting it again"
                _log.warning("%s", self.state)
                await asyncio.to_thread(head.end, self._home)
                await jobs.cluster_lost(again)
            else:
                await jobs.cluster_lost("Ray ended while no service was up")
            self._head = None
            self._starting = asyncio.ensure_future(asyncio.to_thread(RayHead.start, self._home, self._cpus))
            head = await asyncio.shield(self._starting)
            self._starting = None
        self._head = head
        return head.address, head.token

    async def _serve(self, jobs: Jobs, address: str, token: str | None) -> None:
        """Start an agent and handle its events until the agent or Ray ends."""
        where = ["--loopback"] if self.own else []
        with (self._home.logs / "ray-agent.log").open("ab") as log:
            agent = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cluster.service.ray_agent", address, *where),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, **ray_environment(token)},
                limit=2**24,
            )
        self._agent = agent
        assert agent.stdout is not None, "stdout is a pipe"
        watches = [asyncio.create_task(watch(agent)) for watch in (self._watch_head, self._watch_agent)]
        try:
            async with asyncio.timeout(_CONNECT_S):  # wait_for loses a cancellation that comes with the line
                first = await agent.stdout.readline()
            event = json.loads(first) if first else {"event": "refused", "cause": "its agent ended at once"}
            if event["event"] != "ready":
                raise NotEnoughResources(f"the agent cannot connect to Ray at {address}: {event.get('cause')}")
            await self._ready(jobs, event)
            while line := await agent.stdout.readline():
                with logged("an event of Ray's agent"):
                    await self._take(jobs, json.loads(line))
        finally:
            for watch in watches:
                watch.cancel()
            if self.state == "up":
                self.state = "lost; looking for it"

    async def _ready(self, jobs: Jobs, event: Mapping[str, Any]) -> None:
        session = event["session"]
        if not self.own:
            if self._session is not None and self._session != session:
                await jobs.cluster_lost("the Ray cluster was restarted")
            self._home.write(self._home.ray_file, {"session_name": session, "address": self.address})
        self.state = "up"
        self.up.set()
        jobs.cluster_is(event["nodes"])
        await jobs.connected()

    async def _watch_head(self, agent: asyncio.subprocess.Process) -> None:
        """End the agent if Ray is gone. The agent itself may take a minute to notice that."""
        while self._head is None or self._head.alive():
            await asyncio.sleep(_LOOK_EVERY_S)
        with contextlib.suppress(ProcessLookupError):
            agent.kill()

    async def _watch_agent(self, agent: asyncio.subprocess.Process) -> None:
        """End an agent that does not answer, so that another one is started: without one, no job starts or stops."""
        while self.state != "up" or await self.agent_answers(_SILENT_S):
            await asyncio.sleep(_PING_EVERY_S)
        _log.warning("Ray's agent has not answered for %g s; starting another one", _SILENT_S)
        with contextlib.suppress(ProcessLookupError):
            agent.kill()

    async def _take(self, jobs: Jobs, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "alive":
                self._answered.set()
            case "cluster":
                jobs.cluster_is(event["nodes"])
            case "ended":
                await self._gone(jobs, event, "its runner ended without reporting how", event.get("ending"))
            case "absent":
                await self._gone(jobs, event, "its runner is gone")
            case "lost":
                if jobs.closing:
                    self._lost.add((event["job"], event["attempt"]))
                await self._gone(jobs, event, event["cause"])
            case "refused":
                await self._gone(jobs, event, f"Ray did not start its runner: {event['cause']}", again=False)
            case "silent":
                jobs.runner_silent(event["job"], event["attempt"], event["seconds"])

    async def _gone(
        self,
        jobs: Jobs,
        event: Mapping[str, Any],
        cause: str,
        ending: Mapping[str, Any] | None = None,
        *,
        again: bool = True,
    ) -> None:
        """Note the end of a runner, which the agent reports only once. If that fails (a full disk), try again later."""
        try:
            how = () if ending is None else (ending,)
            await jobs.runner_gone(event["job"], event["attempt"], cause, *how, again=again)
        except Exception as error:
            if not isinstance(error, StoreTrouble):  # `jobs` logs that one
                _log.exception("the end of job %s could not be noted", event["job"])
            loop = asyncio.get_running_loop()

            def retry() -> None:
                self._retries.add(loop.create_task(self._gone(jobs, event, cause, ending, again=again)))

            loop.call_later(_AGAIN_S, retry)
        self._retries = {task for task in self._retries if not task.done()}

    async def _end_agent(self) -> None:
        agent, self._agent = self._agent, None
        if agent is not None:
            with contextlib.suppress(ProcessLookupError):
                agent.kill()
            await agent.wait()


def _of_the_host(error: OSError) -> str:
    return f"its agent cannot be started: {(error.strerror or str(error)).lower()}: {error.filename or 'this machine'}"
