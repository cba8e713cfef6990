"""Whether this process reaches the nodes of Ray. Ray itself takes a minute to give up one that it does not reach."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

_REACH_S = 0.3
_Place = tuple[str, int]


def places_of_nodes(ray: Any) -> dict[str, _Place]:
    """Return where Ray's own process listens on each node that Ray takes for alive."""
    return {at["NodeID"]: (at["NodeManagerAddress"], at["NodeManagerPort"]) for at in ray.nodes() if at["Alive"]}


def takes_connections(place: _Place) -> bool:
    """Whether the host can be reached. Its kernel takes or refuses the connection, whatever the process there does."""
    try:
        socket.create_connection(place, timeout=_REACH_S).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


class CutOffNodes:
    """The nodes on which workers were cut off: nothing can be placed there until they are reached again, or until Ray
    has given them up."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._noted: set[str] = set()

    def note(self, node: str) -> None:
        """Take note that a worker of this node was cut off."""
        self._noted.add(node)

    def now(self) -> frozenset[str]:
        """Return those that Ray takes for alive and that cannot be reached; forget the others."""
        if self._noted:
            with contextlib.suppress(Exception):  # Ray does not answer: nothing new is known
                places = places_of_nodes(self._ray)
                self._noted = {node for node in self._noted & set(places) if not takes_connections(places[node])}
        return frozenset(self._noted)
