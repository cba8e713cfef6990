"""The Ray agent: the process through which the service uses Ray. If Ray fails, Ray ends every process connected to it,
so the service itself must not be one.

The agent reads commands from standard input and writes events to standard output, each a JSON object in a line, and
ends when its input ends. Commands: `launch`, `adopt`, `stop`, `end`, `forget`, `ping`. Events: `ready`, `cluster`,
`launched`, `absent`, `ended`, `lost`, `silent`, `refused`; `alive` answers `ping`.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.actors.host_processes import end_ray_process, end_with_parent
from cluster.actors.ray_session import LOOPBACK, full_here, loopback
from cluster.run.job_runner import ACTOR_NAME, CONTROL, FILES, GROUPS, LOGS, Assignment, JobRunner, runner_name

NAMESPACE = "pipetrain"
_PING_S = 5.0
_SILENT_S = 20.0  # a runner that answers no ping for longer is reported, again every _PING_S
_LOOK_EVERY_S = 0.1
_CLUSTER_EVERY_S = 1.0

Key = tuple[str, int]


@dataclass
class _Runner:
    """A runner that the agent watches: its handle, and the ping that it has not answered yet."""

    handle: Any
    ping: Any
    since: float
    silence_sent: float = 0.0


class RayAgent:
    """Performs commands and watches runners, in one thread."""

    def __init__(self, ray: Any, commands: queue.SimpleQueue[Mapping[str, Any]]) -> None:
        self._ray, self._commands = ray, commands
        self._runners: dict[Key, _Runner] = {}
        self._node = ray.get_runtime_context().get_node_id()
        self._cluster: list[dict[str, Any]] = []
        self._next_cluster = 0.0

    def serve(self) -> None:
        """Perform commands and watch runners until the process ends."""
        send_event("ready", node=self._node, session=_session_name(self._ray), nodes=self._nodes())
        while True:
            self._look_at_cluster()
            self._look_at_runners()
            with contextlib.suppress(queue.Empty):
                self._perform(self._commands.get(timeout=0.0 if self._runners else _LOOK_EVERY_S))

    # commands ------------------------------------------------------------------------------------------------------

    def _perform(self, command: Mapping[str, Any]) -> None:
        what = command["do"]
        if what == "ping":
            send_event("alive")
            return
        key: Key = command["job"], command["attempt"]
        if what == "launch":
            self._launch(key, command["assignment"])
        elif what == "adopt":
            handle = self._find(key)
            if handle is None:
                send_event("absent", job=key[0], attempt=key[1])
            else:
                self._look_after(key, handle)
        elif what == "stop":
            handle = self._find(key)
            if handle is not None:
                grace = command.get("grace")  # a runner of an older version knows none
                handle.stop.remote(*(() if grace is None else (grace,)))
        elif what == "end":
            self._end(key, command.get("pid"))
            send_event("lost", job=key[0], attempt=key[1], cause="its runner was ended")
        elif what == "forget":
            self._end(key, command.get("pid"))

    def _launch(self, key: Key, assignment: Mapping[str, Any]) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options = {
            "name": runner_name(*key),
            "lifetime": "detached",
            "num_cpus": 0,
            "max_restarts": 0,
            "max_task_retries": 0,
            # on this node, which has the run directory and the uploads
            "scheduling_strategy": NodeAffinitySchedulingStrategy(self._node, soft=False),
        }
        try:
            handle = self._find(key)  # a previous agent may have made the actor and ended before it reported that
            if handle is None:
                handle = runner_class(self._ray).options(**options).remote(Assignment(**assignment))
        except Exception as error:
            send_event("refused", job=key[0], attempt=key[1], cause=_one_line(error))
            return
        self._look_after(key, handle)
        send_event("launched", job=key[0], attempt=key[1])

    def _look_after(self, key: Key, handle: Any) -> None:
        handle.run.remote()  # the runner ignores further calls
        self._runners[key] = _Runner(handle, handle.ping.remote(_PING_S), time.monotonic())

    def _end(self, key: Key, pid: int | None) -> None:
        """End the runner's process, which ends its workers too. Works for a stopped (SIGSTOP) process as well."""
        self._runners.pop(key, None)
        handle = self._find(key)
        if handle is not None:
            with contextlib.suppress(Exception):
                self._ray.kill(handle, no_restart=True)
        if pid is not None:
            end_ray_process(pid, ACTOR_NAME)

    def _find(self, key: Key) -> Any:
        try:
            return self._ray.get_actor(runner_name(*key), namespace=NAMESPACE)
        except ValueError:
            return None

    # watching ------------------------------------------------------------------------------------------------------

    def _look_at_runners(self) -> None:
        if not self._runners:
            return
        pings = {runner.ping: key for key, runner in self._runners.items()}
        ready, _ = self._ray.wait(list(pings), num_returns=1, timeout=_LOOK_EVERY_S)
        now = time.monotonic()
        for ref in ready:
            key = pings[ref]
            runner = self._runners[key]
            try:
                ended = self._ray.get(ref)
            except self._ray.exceptions.RayError as error:
                del self._runners[key]
                send_event("lost", job=key[0], attempt=key[1], cause=_why_lost(error, full_here(self._ray)))
                continue
            if ended:
                del self._runners[key]
                how = {"ending": ended} if isinstance(ended, Mapping) else {}
                send_event("ended", job=key[0], attempt=key[1], **how)
            else:
                if runner.silence_sent:
                    send_event("silent", job=key[0], attempt=key[1], seconds=0)
                runner.ping, runner.since, runner.silence_sent = runner.handle.ping.remote(_PING_S), now, 0.0
        for key, runner in self._runners.items():
            if now - runner.since > _PING_S + _SILENT_S and now - runner.silence_sent > _PING_S:
                runner.silence_sent = now
                send_event("silent", job=key[0], attempt=key[1], seconds=round(now - runner.since - _PING_S))

    def _look_at_cluster(self) -> None:
        now = time.monotonic()
        if now < self._next_cluster:
            return
        self._next_cluster = now + _CLUSTER_EVERY_S
        found = self._nodes()
        if found != self._cluster:
            self._cluster = found
            send_event("cluster", nodes=found)

    def _nodes(self) -> list[dict[str, Any]]:
        from ray._private.state import available_resources_per_node

        free = available_resources_per_node()
        nodes = []
        for node in sorted(self._ray.nodes(), key=lambda node: str(node["NodeID"])):
            total, left = node["Resources"], free.get(node["NodeID"], {})
            if node["Alive"]:
                nodes.append(
                    {
                        "id": node["NodeID"],
                        "host": node["NodeManagerHostname"],
                        "address": node["NodeManagerAddress"],
                        "cpus": total.get("CPU", 0.0),
                        "cpus_used": total.get("CPU", 0.0) - left.get("CPU", 0.0),
                        "memory": int(total.get("memory", 0)),
                        "memory_used": int(total.get("memory", 0) - left.get("memory", 0)),
                    }
                )
        return nodes


def runner_class(ray: Any) -> Any:
    """Return JobRunner as a Ray actor class that handles calls while it runs, in threads of their own."""

    class PipetrainRunner(JobRunner):
        """A JobRunner that handles calls while it runs."""

        stop = ray.method(concurrency_group=CONTROL)(JobRunner.stop)
        ping = ray.method(concurrency_group=CONTROL)(JobRunner.ping)
        read_file = ray.method(concurrency_group=FILES)(JobRunner.read_file)
        take_log = ray.method(concurrency_group=LOGS)(JobRunner.take_log)

    assert PipetrainRunner.__name__ == ACTOR_NAME, "runners are found by it"
    return ray.remote(concurrency_groups=GROUPS)(PipetrainRunner)


def _session_name(ray: Any) -> str:
    """Return the name of this Ray's session, which differs from that of a Ray started later at the same address."""
    name: str = ray._private.worker.global_worker.node.session_name
    return name


def _why_lost(error: BaseException, full: str) -> str:
    if "running low on memory" in str(error):
        return "its runner was ended by Ray because the host ran low on memory"
    if full:
        return f"{full}; its runner's process ended unexpectedly"
    return (
        "its runner's process ended unexpectedly: killed from outside, by the kernel for lack of memory, or by a crash"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


def send_event(event: str, **details: Any) -> None:
    """Write one event to the service."""
    os.write(_OUTPUT, (json.dumps({"event": event, **details}) + "\n").encode())


_OUTPUT = 1


def main() -> None:
    """Connect to Ray at the given address, and serve. Events go to the original standard output, anything that Ray
    prints to standard error."""
    global _OUTPUT
    _OUTPUT = os.dup(1)
    os.dup2(2, 1)
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C in a terminal, the service ends the agent
    address = sys.argv[1]
    commands: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            commands.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    import ray

    own = "--loopback" in sys.argv
    here: dict[str, Any] = {"_node_ip_address": LOOPBACK} if own else {}
    try:
        with loopback() if own else contextlib.nullcontext():
            ray.init(
                address=address,
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level="ERROR",
                configure_logging=False,
                **here,
            )
    except Exception as error:
        send_event("refused", cause=_one_line(error))
        os._exit(1)
    RayAgent(ray, commands).serve()


if __name__ == "__main__":
    main()
