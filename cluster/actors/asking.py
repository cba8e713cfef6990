"""Asks workers what they are doing, and looks at those that do not answer."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cluster.actors.host_processes import is_ray_process
from cluster.actors.protocol import WorkerAddress
from cluster.actors.reaching import places_of_nodes, takes_connections
from coordinator.train.liveness import Sight
from stages.progress import Seen, thread_state

_ANSWER_S = 0.05  # a worker that does not hold Python's lock answers within milliseconds
_REACH_S = 0.3
_STOPPED = "T"


class ProgressQuestions:
    """The questions to the workers of one submission. A worker gets a new one only after its answer."""

    def __init__(self, ray: Any, actors: Sequence[Any]) -> None:
        self._ray, self._actors = ray, actors
        self._open: dict[int, Any] = {}

    def ask(self) -> dict[int, Seen]:
        """Ask all workers that owe no answer, and return what has been answered since the last call or comes at
        once."""
        for worker, actor in enumerate(self._actors):
            if worker not in self._open:
                self._open[worker] = actor.seen.remote()
        refs = list(self._open.values())
        ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=_ANSWER_S)
        found = {}
        for worker, ref in list(self._open.items()):
            if ref in ready:
                del self._open[worker]
                with contextlib.suppress(Exception):  # its death is told by its own call
                    found[worker] = self._ray.get(ref)
        return found


class Sights:
    """Looks at silent workers from outside. `actors[w]` is the actor of the worker at `addresses[w]`."""

    def __init__(self, ray: Any, actors: Sequence[Any], addresses: Sequence[WorkerAddress], actor_class: str) -> None:
        self._ray, self._actors, self._addresses, self._class = ray, actors, addresses, actor_class
        self._nodes: Mapping[str, tuple[str, int]] | None = None

    def look(self, worker: int, seen: Seen | None, answering: Collection[int]) -> Sight:
        """Return what can be known of a worker that does not answer, and was last `seen` so. `answering`: workers that
        do answer; one of the same host looks at it."""
        address = self._addresses[worker]
        if address.node != self._ray.get_runtime_context().get_node_id():
            near = next((w for w in answering if self._addresses[w].node == address.node), None)
            if near is None:
                return Sight.UNKNOWN if self._reachable(address.node) else Sight.UNREACHABLE
            return self._seen_by(near, address.pid, seen)
        return look_at(address.pid, None if seen is None else seen.thread, self._class)

    def _seen_by(self, near: int, pid: int, seen: Seen | None) -> Sight:
        with contextlib.suppress(Exception):
            call = self._actors[near].look_at.remote(pid, None if seen is None else seen.thread, self._class)
            return Sight(self._ray.get(call, timeout=_REACH_S))
        return Sight.UNKNOWN

    def _reachable(self, node: str) -> bool:
        """Whether Ray's own process on the worker's host takes a connection, which the kernel does for it."""
        if self._nodes is None:
            self._nodes = places_of_nodes(self._ray)
        place = self._nodes.get(node)
        return place is None or takes_connections(place)


def look_at(pid: int, thread: int | None, actor_class: str) -> Sight:
    """Return whether a worker's process on this host is stopped (SIGSTOP)."""
    stopped = is_ray_process(pid, actor_class) and thread_state(thread or pid, pid) == _STOPPED
    return Sight.STOPPED if stopped else Sight.UNKNOWN
