"""Schedules: pure functions that return a Program.

build("1f1b", n_stages=4, n_micro_batches=8)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from coordinator.job.nearest import did_you_mean
from coordinator.schedules.gpipe import gpipe
from coordinator.schedules.interleaved import interleaved
from coordinator.schedules.one_f_one_b import one_f_one_b
from coordinator.schedules.zero_bubble import zero_bubble_h1, zero_bubble_h2
from stages.actions import Program
from stages.errors import InvalidSchedule

__all__ = ["SCHEDULES", "build", "default_workers", "restrict"]

SCHEDULES: dict[str, Callable[[int, int, int], Program]] = {
    "gpipe": gpipe,
    "1f1b": one_f_one_b,
    "interleaved-1f1b": interleaved,
    "zb-h1": zero_bubble_h1,
    "zb-h2": zero_bubble_h2,
}
"""Every built-in schedule: (stages, micro-batches, workers) → Program, for any three numbers of at least 1."""


def default_workers(name: str, n_stages: int) -> int:
    """Return the number of stages; for interleaved-1f1b half of it, rounded up."""
    return (n_stages + 1) // 2 if name == "interleaved-1f1b" else n_stages


@lru_cache(maxsize=64)
def build(name: str, *, n_stages: int, n_micro_batches: int, n_workers: int | None = None) -> Program:
    """Return the built-in schedule `name`. Raises InvalidSchedule for an unknown name or impossible numbers."""
    if name not in SCHEDULES:
        hint = did_you_mean(name, SCHEDULES)
        raise InvalidSchedule(f"{name!r} is not a schedule; there are {', '.join(SCHEDULES)} and .csv files{hint}")
    workers = default_workers(name, n_stages) if n_workers is None else n_workers
    if min(n_stages, n_micro_batches, workers) < 1 or workers > n_stages:
        raise InvalidSchedule(
            f"{name}: {n_stages} stages, {n_micro_batches} micro-batches, {workers} workers: each must be at least 1, "
            "and workers at most stages"
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
    return Program(program.name, program.n_stages, n_micro_batches, lanes)
