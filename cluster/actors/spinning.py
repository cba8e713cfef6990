"""Decides whether a worker that waits may keep its core.

[Note: spinning] Waking a sleeping process takes longer than many a small action. So a worker that waits looks again and
again for a short while before it sleeps, if each worker of the host has its cores for itself. The kernel counts how
long a thread was ready to run and had no core: if that is long beside the CPU time that it used, other programs want
the core, and the worker sleeps at once; so it does if the kernel does not tell. How often it lost the core says less:
the threads of an idle Ray wake up some hundred times a second, and take only moments.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

SPIN_S = 200e-6
_JUDGED_EVERY_S = 0.5
_LITTLE = 0.2
"""Of the time that a thread wants to run. A program that computes takes a third of two cores and more, Ray and the
coordinator a few hundredths."""
_LEAST_S = 0.005  # a single turn of another program says nothing


def core_times() -> tuple[float, float]:
    """Return how long this thread waited for a core, and how long it had one, in seconds. Both are 0 if the system does
    not tell."""
    try:
        had, waited, _ = Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return 0.0, 0.0
    return int(waited) / 1e9, int(had) / 1e9


class Spinning:
    """The permission to spin of one thread. `wanted` is whether the host has cores enough."""

    def __init__(self, *, wanted: bool, count: Callable[[], tuple[float, float]] = core_times) -> None:
        self._wanted, self._count = wanted, count
        self._judged_at = 0.0
        self._before: tuple[float, float] | None = None
        self._allowed = wanted

    def allowed(self, now: float) -> bool:
        """Whether the thread may spin at `now`, in seconds of any clock."""
        if self._wanted and now - self._judged_at >= _JUDGED_EVERY_S:
            self._judged_at, after = now, self._count()
            if self._before is not None:
                waited, had = (a - b for a, b in zip(after, self._before, strict=True))
                self._allowed = had > 0 and waited <= max(_LEAST_S, (waited + had) * _LITTLE)
            self._before = after
        return self._allowed
