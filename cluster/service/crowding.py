"""Whether a port has as many connections as it takes. Whoever comes then is turned away by a closed connection, which
says nothing: so the log and /healthz say it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

LOOK_EVERY_S = 5.0
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LOCAL, _STATE = 1, 3  # columns
_ESTABLISHED = "01"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Port:
    """A port of the service, and how many connections it takes."""

    name: str
    number: int
    most: int


class Crowding:
    """Counts the connections of `ports`. `problems` has a line for each port that is full."""

    def __init__(self, ports: Collection[Port]) -> None:
        self._ports = ports
        self.problems: list[str] = []

    async def keep(self) -> None:
        """Look again and again, for as long as the service runs; what changes is told in the log."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Count now."""
        open_now = await asyncio.to_thread(connections, {port.number for port in self._ports})
        found = [
            f"{port.name} has {open_now[port.number]:,} connections, as many as it takes; others are closed at once"
            for port in self._ports
            if open_now[port.number] >= port.most
        ]
        if bool(found) != bool(self.problems):
            _log.warning("%s", "; ".join(found) or "there is room for connections again")
        self.problems = found


def connections(ports: Collection[int]) -> Counter[int]:
    """The established connections of each local port, from the kernel; none where this is not Linux."""
    found: Counter[int] = Counter()
    for table in _TABLES:
        try:
            lines = table.read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[_STATE] == _ESTABLISHED:
                found[int(fields[_LOCAL].rpartition(":")[2], 16)] += 1
    return Counter({port: found[port] for port in ports})
