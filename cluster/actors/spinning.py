"""Decides whether a worker that waits may keep its core.

[Note: spinning] Waking a sleeping process takes longer than many a small action. So a worker that waits looks again and
again for a short while before it sleeps, if each worker of the host has its cores for itself. The kernel counts how
often it took the core away: if that is often for the CPU time used, other programs want the core, and the worker
sleeps at once.
"""

from __future__ import annotations

import resource
from collections.abc import Callable

SPIN_S = 200e-6
_JUDGED_EVERY_S = 0.5
_FEW_PREEMPTIONS = 100.0
"""A second of CPU time. Background processes take the core away less often; a program that computes, each few ms."""


def preemptions() -> tuple[int, float]:
    """Return how often this thread was preempted, and its CPU time in seconds."""
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_nivcsw, usage.ru_utime + usage.ru_stime


class Spinning:
    """The permission to spin of one thread. `wanted` is whether the host has cores enough."""

    def __init__(self, *, wanted: bool, count: Callable[[], tuple[int, float]] = preemptions) -> None:
        self._wanted, self._count = wanted, count
        self._judged_at = 0.0
        self._before: tuple[int, float] | None = None
        self._allowed = wanted

    def allowed(self, now: float) -> bool:
        """Whether the thread may spin at `now`, in seconds of any clock."""
        if self._wanted and now - self._judged_at >= _JUDGED_EVERY_S:
            self._judged_at, after = now, self._count()
            if self._before is not None:
                times, cpu_s = (a - b for a, b in zip(after, self._before, strict=True))
                self._allowed = times <= max(1.0, cpu_s * _FEW_PREEMPTIONS)
            self._before = after
        return self._allowed
