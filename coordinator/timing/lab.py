"""All built-in schedules side by side: the same network on the same number of workers, for given times.

for row in compare(Question(n_workers=8, n_micro_batches=32)):
    print(row.schedule, row.step, row.bubble, row.kept)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coordinator.job.schedule_names import SCHEDULES, TWO_STAGES_A_WORKER, fewest_micro_batches
from coordinator.program.clock import Timed, on_the_clock
from coordinator.program.kept import kept
from coordinator.schedules import tabulate
from stages.errors import UserMistake


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is compared. `times` are those of F, I and W of one worker's layers and one micro-batch; `latency` is the
    time of an array from one worker to the next; both in any unit. `memory` is the most micro-batches that a worker
    may keep between F and W, None for any."""

    n_workers: int
    n_micro_batches: int
    times: tuple[float, float, float] = (1.0, 1.0, 1.0)
    latency: float = 0.0
    memory: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One schedule. `kept` are micro-batches of a worker's whole layers: with two stages a worker, one stage's
    micro-batch counts as a half. `timed` has its times in the question's unit."""

    schedule: str
    timed: Timed
    kept: float
    fits: bool

    @property
    def step(self) -> float:
        """How long a step takes."""
        return self.timed.makespan


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A schedule that cannot be built for these numbers, and why."""

    schedule: str
    why: str


def compare(question: Question, schedules: Sequence[str] = SCHEDULES) -> list[Row | LeftOut]:
    """Return a row for each schedule. Raises UserMistake if every one keeps more than `memory`."""
    rows = [_row(question, schedule) for schedule in schedules]
    built = [row for row in rows if isinstance(row, Row)]
    if built and not any(row.fits for row in built):
        least = min(built, key=lambda row: row.kept)
        raise UserMistake(
            f"memory: {question.memory:g} micro-batches a worker, but no schedule keeps so few; "
            f"the least is {least.kept:g}, of {least.schedule}"
        )
    return rows


def best(rows: Sequence[Row | LeftOut]) -> Row | None:
    """Return the row with the shortest step of those that fit; of equal ones, the one that keeps least."""
    fitting = [row for row in rows if isinstance(row, Row) and row.fits]
    return min(fitting, key=lambda row: (row.step, row.kept), default=None)


def _row(question: Question, schedule: str) -> Row | LeftOut:
    p, m = question.n_workers, question.n_micro_batches
    fewest = fewest_micro_batches(schedule, p)
    if m < fewest:
        return LeftOut(schedule, f"needs at least {fewest} micro-batches")
    a_worker = 2 if schedule in TWO_STAGES_A_WORKER else 1
    table = tabulate(schedule, n_stages=a_worker * p, n_micro_batches=m, n_workers=p)
    forward, backward, weight = question.times
    times = np.array([forward, backward, weight, backward + weight]) / a_worker
    timed = on_the_clock(table, times, latency=question.latency)
    most = max(kept(table).together) / a_worker
    return Row(schedule, timed, most, question.memory is None or most <= question.memory)
