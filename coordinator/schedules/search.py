"""The schedule `auto`: a program made for a job's own times, never slower than the best built-in one.

It begins with every built-in schedule and with greedy programs made for these times, and improves the best of them
(`improving`). Two workers with unlike stages, or slow links, leave gaps that no schedule for equal times fills.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from coordinator.program.clock import on_the_clock
from coordinator.program.table import ActionTable, Times, apart
from coordinator.schedules import SCHEDULES, tabulate
from coordinator.schedules.improving import improve
from coordinator.schedules.zero_bubble import most_in_flight, within_limits
from stages.errors import InvalidSchedule

_BEST = 3  # starts that are improved
_WORK = 2_000_000  # actions performed by all tries together
_MOST_TRIES = 3_000

Fits = Callable[[ActionTable], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the program is made for. `times` (stages, 4) and `latency` are those of `clock.on_the_clock`. `fits` says
    whether workers have the memory for a program."""

    n_stages: int
    n_micro_batches: int
    n_workers: int
    times: Times
    latency: float = 0.0
    fits: Fits = lambda table: True


@dataclass(frozen=True, slots=True)
class Found:
    """The program, the length of its step, and the fastest built-in schedule that fits; None if none fits."""

    table: ActionTable
    step: float
    built_in: str | None
    built_in_step: float | None

    @property
    def gain(self) -> float | None:
        """By which share the step is shorter than that of the best built-in schedule."""
        return None if self.built_in_step is None else 1 - self.step / self.built_in_step


def search(wanted: Wanted) -> Found | None:
    """Return the best program that was found, None if no start fits into the memory. The answer depends on the
    arguments alone."""
    starts = [table for table in _starts(wanted) if wanted.fits(table)]
    if not starts:
        return None
    steps = [on_the_clock(table, wanted.times, latency=wanted.latency).makespan for table in starts]
    ranked = sorted(range(len(starts)), key=steps.__getitem__)
    built_in = next((place for place in ranked if starts[place].name in SCHEDULES), None)
    best, step = starts[ranked[0]], steps[ranked[0]]
    tries = min(_MOST_TRIES, _WORK // max(1, sum(map(len, best.lanes))))
    for place in ranked[:_BEST]:
        found = improve(starts[place], wanted.times, wanted.latency, tries=tries // _BEST)
        if found.step < step and wanted.fits(found.table):
            best, step = found.table, found.step
    name, length = (None, None) if built_in is None else (starts[built_in].name, steps[built_in])
    return Found(replace(best, name="auto"), step, name, length)


def _starts(wanted: Wanted) -> Iterator[ActionTable]:
    """Yield every built-in schedule, as workers perform it, and greedy programs with more and fewer micro-batches at
    once."""
    n_stages, m, n_workers = wanted.n_stages, wanted.n_micro_batches, wanted.n_workers
    for name in SCHEDULES:
        try:
            yield apart(tabulate(name, n_stages=n_stages, n_micro_batches=m, n_workers=n_workers))
        except InvalidSchedule:
            continue  # DualPipeV with few micro-batches
    usual = most_in_flight(n_stages, m, n_workers)
    for limits in (usual, usual + 1, usual + 2, 2 * usual - 1, 2 * usual):
        yield from _greedy(wanted, limits, {int(limits.max()), int(limits.max()) + 1, int(limits.max()) + 2})
    for most in range(1, int(usual.max())):
        yield from _greedy(wanted, np.minimum(usual, most), {most})


def _greedy(
    wanted: Wanted, limits: np.ndarray[tuple[int], np.dtype[np.int64]], most: set[int]
) -> Iterator[ActionTable]:
    for kept in sorted(most):
        yield within_limits("greedy", wanted.n_stages, wanted.n_micro_batches, limits, kept, wanted.times)
