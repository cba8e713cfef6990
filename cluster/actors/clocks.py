"""How the monotonic clocks of other hosts stand to this process's.

Processes of one host share a clock, and need nothing. Another host's is asked for the time a few times; the answer that
came back soonest bounds the offset best (Cristian, "Probabilistic clock synchronization", 1989): the clock was read
somewhere between question and answer, so the middle is wrong by half of that time at most.
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
    """What processes have in common that share a monotonic clock: the boot, and the time namespace's shift."""
    name = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    with contextlib.suppress(OSError):
        name += "".join(Path("/proc/self/timens_offsets").read_text(encoding="ascii").split())
    return name


def measure(ask: Callable[[], float], clock: Callable[[], float] = time.perf_counter) -> ClockFix:
    """The fix of the clock that `ask` reads, in seconds."""
    found = []
    for _ in range(_ROUNDS):
        before = clock()
        theirs = ask()
        after = clock()
        found.append(ClockFix(offset=(before + after) / 2 - theirs, error=(after - before) / 2))
    return min(found, key=lambda fix: fix.error)


class Clocks:
    """The fixes of a job's workers. `asks[w]` reads worker w's clock, or is None where it shares ours."""

    def __init__(self, asks: Sequence[Callable[[], float] | None]) -> None:
        self._asks = asks
        self._fixes = [ClockFix() for _ in asks]
        self._until = 0.0

    def fixes(self) -> Sequence[ClockFix]:
        """What to add to each worker's clock; measured anew when the last time is long ago. One that does not answer
        keeps its last fix."""
        now = time.monotonic()
        if now >= self._until:
            for worker, ask in enumerate(self._asks):
                if ask is not None:
                    with contextlib.suppress(Exception):
                        self._fixes[worker] = measure(ask)
            self._until = now + _VALID_S
        return self._fixes
