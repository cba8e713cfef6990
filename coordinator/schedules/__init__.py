"""Schedules: pure functions that return a program, as numbers.

build("1f1b", n_stages=4, n_micro_batches=8)       # a Program
tabulate("1f1b", n_stages=4, n_micro_batches=8)    # the same as numbers: for large programs
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

from coordinator.job.nearest import did_you_mean
from coordinator.job.schedule_names import default_workers
from coordinator.program.table import ActionTable
from coordinator.schedules.controllable_memory import v_half, v_min
from coordinator.schedules.dual_pipe_v import dual_pipe_v
from coordinator.schedules.gpipe import gpipe, looped_bfs
from coordinator.schedules.interleaved import interleaved
from coordinator.schedules.one_f_one_b import one_f_one_b
from coordinator.schedules.zbv import zbv
from coordinator.schedules.zero_bubble import zero_bubble_h1, zero_bubble_h2
from stages.actions import Action, Program
from stages.errors import InvalidSchedule

__all__ = ["SCHEDULES", "build", "default_workers", "restrict", "tabulate"]

SCHEDULES: dict[str, Callable[[int, int, int], ActionTable]] = {
    "gpipe": gpipe,
    "1f1b": one_f_one_b,
    "interleaved-1f1b": interleaved,
    "looped-bfs": looped_bfs,
    "zb-h1": zero_bubble_h1,
    "zb-h2": zero_bubble_h2,
    "zbv": zbv,
    "v-half": v_half,
    "v-min": v_min,
    "dualpipev": dual_pipe_v,
}
"""Every built-in schedule: (stages, micro-batches, workers) → program, for any three numbers of at least 1, but for
DualPipeV with fewer than two micro-batches a worker. Their names for job files are in `coordinator.job`."""

MOST_FORWARDS = 2**24
"""Forward passes of the largest program; one with W apart takes about 3 GB."""


@lru_cache(maxsize=64)
def build(name: str, *, n_stages: int, n_micro_batches: int, n_workers: int | None = None) -> Program:
    """Return the built-in schedule `name`. Raises InvalidSchedule for an unknown name or impossible numbers."""
    return tabulate(name, n_stages=n_stages, n_micro_batches=n_micro_batches, n_workers=n_workers).program()


def tabulate(name: str, *, n_stages: int, n_micro_batches: int, n_workers: int | None = None) -> ActionTable:
    """Like `build`, but the program as numbers."""
    if name not in SCHEDULES:
        hint = did_you_mean(name, SCHEDULES)
        raise InvalidSchedule(f"{name!r} is not a schedule; there are {', '.join(SCHEDULES)} and .csv files{hint}")
    workers = default_workers(name, n_stages) if n_workers is None else n_workers
    if min(n_stages, n_micro_batches, workers) < 1 or workers > n_stages:
        raise InvalidSchedule(
            f"{name}: {n_stages} stages, {n_micro_batches} micro-batches, {workers} workers: each must be at least 1, "
            "and workers at most stages"
        )
    if n_stages * n_micro_batches > MOST_FORWARDS:
        raise InvalidSchedule(
            f"{name}: {n_stages:,} stages × {n_micro_batches:,} micro-batches are {n_stages * n_micro_batches:,} "
            f"forward passes, must be at most {MOST_FORWARDS:,}"
        )
    return SCHEDULES[name](n_stages, n_micro_batches, workers)


def restrict(program: Program, n_micro_batches: int) -> Program:
    """Return the program for fewer micro-batches, without the actions on the other ones.

    A valid program stays valid: an action needs only actions on its own micro-batch, and leaving actions out of the
    lanes cannot close a circle. Raises InvalidSchedule if the program has fewer than `n_micro_batches`.
    """
    if not 1 <= n_micro_batches <= program.n_micro_batches:
        raise InvalidSchedule(
            f"{program.name}: cannot be cut to {n_micro_batches} micro-batches, it has {program.n_micro_batches}"
        )
    lanes = tuple(tuple(action for action in lane if action.micro_batch < n_micro_batches) for lane in program.lanes)
    return Program(program.name, program.n_stages, n_micro_batches, lanes, _still_paired(program, n_micro_batches))


def _still_paired(program: Program, n_micro_batches: int) -> frozenset[Action]:
    """Return the pairs of which both halves are left."""
    if not program.pairs:
        return frozenset()
    both = ((first, second) for lane in program.lanes for first, second in pairwise(lane) if first in program.pairs)
    return frozenset(a for a, b in both if max(a.micro_batch, b.micro_batch) < n_micro_batches)
