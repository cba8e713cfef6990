"""Detects ports that have reached their connection limit. The service then closes new connections without a message,
so the log and /healthz report it."""

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
    """A port of the service; `most` is its connection limit."""

    name: str
    number: int
    most: int


class Crowding:
    """Counts the connections of `ports`. `problems` has a line for each port that is full."""

    def __init__(self, ports: Collection[Port]) -> None:
        self._ports = ports
        self.problems: list[str] = []

    async def keep(self) -> None:
        """Look every LOOK_EVERY_S seconds for as long as the service runs, and log changes."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Count the connections now."""
        open_now = await asyncio.to_thread(connections, {port.number for port in self._ports})
        found = [
            f"{port.name} has {open_now[port.number]:,} connections, its limit; further ones are closed at once"
            for port in self._ports
            if open_now[port.number] >= port.most
        ]
        if bool(found) != bool(self.problems):
            _log.warning("%s", "; ".join(found) or "there is room for connections again")
        self.problems = found


def connections(ports: Collection[int]) -> Counter[int]:
    """Return the number of established connections of each local port, from the kernel; all 0 if this is not Linux."""
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
