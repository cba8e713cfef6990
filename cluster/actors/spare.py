"""A spare process: it has all imports done, holds no stage, and waits until a worker is lost, whose place it takes."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from cluster.actors.protocol import WorkerAddress

_BECOMES_S = 2.0  # a process that waits answers at once


class Spare:
    """The spare process of a job; none if not `wanted`. `make` makes the actor on a node. It is on the node with the
    most workers, and takes the place only of workers of this node: their room is reserved there."""

    def __init__(self, ray: Any, make: Callable[[str], Any], *, wanted: bool) -> None:
        self._ray, self._make, self._wanted = ray, make, wanted
        self._actor: Any = None
        self._ready: Any = None
        self._node = ""
        self.took: list[int] = []
        """The workers whose place it took since somebody cleared this."""

    def start(self, addresses: Sequence[WorkerAddress]) -> None:
        """Start the process in the background, unless there is one. `addresses` are those of the workers."""
        if not self._wanted or self._actor is not None or not addresses:
            return
        self._node = Counter(address.node for address in addresses).most_common(1)[0][0]
        self._actor = self._make(self._node)
        self._ready = self._actor.warm_up.remote()

    def take(self, worker: int, node: str) -> Any:
        """Let the process become this worker of this node; return its actor, or None if there is no process that
        can."""
        actor, ready = self._actor, self._ready
        if actor is None or node != self._node or not self._ray.wait([ready], timeout=0)[0]:
            return None
        self._actor = self._ready = None
        with contextlib.suppress(Exception):
            self._ray.get([ready, actor.become.remote(worker)], timeout=_BECOMES_S)
            self.took.append(worker)
            return actor
        self._kill(actor)
        return None

    def end(self) -> None:
        """End the process. A second call does no harm."""
        if self._actor is not None:
            self._kill(self._actor)
            self._actor = self._ready = None

    def _kill(self, actor: Any) -> None:
        with contextlib.suppress(Exception):
            self._ray.kill(actor, no_restart=True)
