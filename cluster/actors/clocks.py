"""Measures the offsets of other hosts' monotonic clocks from this process's clock.

Processes on one host share a clock. The clock of another host is read a few times; the fastest answer gives the best
bound of the offset (Cristian, "Probabilistic clock synchronization", 1989): the clock was read between request and
answer, so assuming the middle is wrong by at most half of that time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from coordinator.train.workers import ClockFix

_ROUNDS = 5
_VALID_S = 10.0  # clocks drift by some 50 µs a second at worst


def clock_name() -> str:
    """Return a name that is the same in all processes which share a monotonic clock: the id of the boot, and the
    offsets of the time namespace."""
    name = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    with contextlib.suppress(OSError):
        name += "".join(Path("/proc/self/timens_offsets").read_text(encoding="ascii").split())
    return name


def measure(ask: Callable[[], float], clock: Callable[[], float] = time.perf_counter) -> ClockFix:
    """Return the fix, in seconds, of the clock that `ask` reads."""
    found = []
    for _ in range(_ROUNDS):
        before = clock()
        theirs = ask()
        after = clock()
        found.append(ClockFix(offset=(before + after) / 2 - theirs, error=(after - before) / 2))
    return min(found, key=lambda fix: fix.error)


class Clocks:
    """The fixes of the clocks of a job's workers. `asks[w]` reads worker w's clock; it is None if worker w shares this
    process's clock."""

    def __init__(self, asks: Sequence[Callable[[], float] | None]) -> None:
        self._asks = asks
        self._fixes = [ClockFix() for _ in asks]
        self._until = 0.0

    def fixes(self) -> Sequence[ClockFix]:
        """Return the fix of each worker's clock, measured again if the last fixes are older than _VALID_S. A worker
        that does not answer keeps its last fix."""
        now = time.monotonic()
        if now >= self._until:
            for worker, ask in enumerate(self._asks):
                if ask is not None:
                    with contextlib.suppress(Exception):
                        self._fixes[worker] = measure(ask)
            self._until = now + _VALID_S
        return self._fixes
