"""Ray's notice that a node leaves soon, for example because a spot instance is taken away."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

_ASK_EVERY_S = 2.0


def draining_nodes() -> Collection[str]:
    """Return Ray's ids of the nodes that it drains; none if Ray does not answer."""
    from ray._private.state import state

    try:
        return list(state.get_draining_nodes())
    except Exception:  # whatever Ray raises: a notice that is missed costs only the steps since the last checkpoint
        return ()


class DrainNotice:
    """Tells once of each node of a run that Ray drains. `nodes` returns Ray's ids of the nodes that the run uses."""

    def __init__(
        self,
        nodes: Callable[[], Collection[str]],
        ask: Callable[[], Collection[str]] = draining_nodes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nodes, self._ask, self._clock = nodes, ask, clock
        self._told: set[str] = set()
        self._next = clock()

    def news(self) -> list[str]:
        """Return the nodes that leave soon, each once. Asks Ray every two seconds."""
        if self._clock() < self._next:
            return []
        self._next = self._clock() + _ASK_EVERY_S
        used = self._nodes()
        found = sorted(node for node in self._ask() if node in used and node not in self._told)
        self._told.update(found)
        return found
