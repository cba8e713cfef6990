"""Keeps Ray there for the service: starts it, finds it again, notices that it is gone, and starts it anew.

The service's own process is no part of Ray (see `ray_agent`): when Ray dies, it lives, and can say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

from cluster.actors.disk_room import full_for_ray
from cluster.service.changes import logged
from cluster.service.home import Home
from cluster.service.jobs import Jobs
from cluster.service.ray_head import RayHead, ray_environment
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
    """`address` None: a head of our own with `cpus` CPUs. `state` is what is told to callers."""

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
        """Why Ray cannot be started here at all; only before it was up for the first time."""

    @property
    def own(self) -> bool:
        """Whether the Ray cluster is the service's, and not one that it joined."""
        return self.address is None

    @property
    def ray_address(self) -> str:
        """Where Ray is; empty before it is known."""
        return self.address or ("" if self._head is None else self._head.address)

    @property
    def folder(self) -> str:
        """Where our own Ray keeps its files; empty before it is there, and for a cluster that was joined."""
        return "" if self._head is None else self._head.folder

    def send(self, command: Mapping[str, Any]) -> None:
        """Give a command to the agent; where there is none, `Jobs.connected` will give it again. Raises OSError for a
        launch while Ray has no room for its files: what it started would die."""
        if command["do"] == "launch" and self.folder and full_for_ray(self.folder):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.folder)
        agent = self._agent
        if agent is not None and agent.stdin is not None and not agent.stdin.is_closing():
            agent.stdin.write((json.dumps(dict(command)) + "\n").encode())

    async def agent_answers(self, within_s: float) -> bool:
        """Whether the agent does what it is told."""
        self._answered.clear()
        self.send({"do": "ping"})
        try:
            async with asyncio.timeout(within_s):
                return await self._answered.wait()
        except TimeoutError:
            return False

    async def keep(self, jobs: Jobs) -> None:
        """For as long as the service runs."""
        self._jobs = jobs
        failures = 0
        while True:
            try:
                address, token = await self._find_ray(jobs)
                await self._serve(jobs, address, token)
                failures = 0
            except TimeoutError:  # it may only be slow; what runs in it goes on, so it is not ended here
                late = f"Ray at {self.ray_address} did not answer within {_CONNECT_S:g} s"
                self.state = f"not there: {late}; it is asked again, and `pipetrain down` ends it"
                _log.warning("Ray: %s", self.state)
                failures += 1
            except (UserMistake, OSError) as error:
                told = error if isinstance(error, UserMistake) else NotEnoughResources(_of_the_host(error))
                if not self.up.is_set() and self.own:
                    self.failed = told
                    self.up.set()
                    return
                self.state = f"not there: {told}"
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
        """End the agent and, where it is ours, Ray: one that is just being started too."""
        await self._end_agent()
        head = (self._head or RayHead.left_by_another(self._home)) if self.own else None
        if head is not None:  # the one that it knows: the home with the note of it may have been moved or deleted
            await asyncio.to_thread(head.end, self._home)
        if self._starting is not None:
            with contextlib.suppress(Exception):
                self._head = await self._starting
                await asyncio.to_thread(self._head.end, self._home)

    async def end_runners(self, jobs: Jobs) -> None:
        """End the runners in a Ray that goes on without us."""
        wanted = {(record.id, record.attempt) for record in jobs.active()}
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
        """Start an agent and do what it tells, until it or Ray ends."""
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
        assert agent.stdout is not None, "it was asked for"
        watches = [asyncio.create_task(watch(agent)) for watch in (self._watch_head, self._watch_agent)]
        try:
            async with asyncio.timeout(_CONNECT_S):  # wait_for loses a cancellation that comes with the line
                first = await agent.stdout.readline()
            event = json.loads(first) if first else {"event": "refused", "cause": "its agent ended at once"}
            if event["event"] != "ready":
                raise NotEnoughResources(f"Ray at {address} does not take us in: {event.get('cause')}")
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
                await jobs.cluster_lost("the Ray cluster was started anew")
            self._home.write(self._home.ray_file, {"session_name": session, "address": self.address})
        self.state = "up"
        self.up.set()
        jobs.cluster_is(event["nodes"])
        await jobs.connected()

    async def _watch_head(self, agent: asyncio.subprocess.Process) -> None:
        """An agent may take a minute to notice that its Ray is gone; end it then."""
        while self._head is None or self._head.alive():
            await asyncio.sleep(_LOOK_EVERY_S)
        with contextlib.suppress(ProcessLookupError):
            agent.kill()

    async def _watch_agent(self, agent: asyncio.subprocess.Process) -> None:
        """Without one that answers, jobs neither start nor stop; replace it then."""
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
                await self._gone(jobs, event, "its runner ended without saying how", event.get("ending"))
            case "absent":
                await self._gone(jobs, event, "its runner is gone")
            case "lost":
                if jobs.closing:
                    self._lost.add((event["job"], event["attempt"]))
                await self._gone(jobs, event, event["cause"])
            case "refused":
                await self._gone(jobs, event, f"Ray did not start its runner: {event['cause']}")
            case "silent":
                jobs.runner_silent(event["job"], event["attempt"], event["seconds"])

    async def _gone(
        self, jobs: Jobs, event: Mapping[str, Any], cause: str, ending: Mapping[str, Any] | None = None
    ) -> None:
        """The agent tells it once; where it could not be noted (a full disk), it is tried again."""
        try:
            how = () if ending is None else (ending,)
            await jobs.runner_gone(event["job"], event["attempt"], cause, *how)
        except Exception as error:
            if not isinstance(error, StoreTrouble):  # that is told by `jobs`
                _log.exception("the end of job %s could not be noted", event["job"])
            loop = asyncio.get_running_loop()
            loop.call_later(
                _AGAIN_S, lambda: self._retries.add(loop.create_task(self._gone(jobs, event, cause, ending)))
            )
        self._retries = {task for task in self._retries if not task.done()}

    async def _end_agent(self) -> None:
        agent, self._agent = self._agent, None
        if agent is not None:
            with contextlib.suppress(ProcessLookupError):
                agent.kill()
            await agent.wait()


def _of_the_host(error: OSError) -> str:
    return f"its agent cannot be started: {(error.strerror or str(error)).lower()}: {error.filename or 'this machine'}"
