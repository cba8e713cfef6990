"""All built-in schedules side by side: the same network on the same number of workers, for given times.

for row in compare(ScheduleComparison(n_workers=8, n_micro_batches=32)):
    print(row.schedule, row.step, row.bubble, row.kept)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coordinator.job.schedule_names import SCHEDULES, TWO_STAGES_A_WORKER, fewest_micro_batches
from coordinator.program.clock import Timed, on_the_clock
from coordinator.program.kept import kept
from coordinator.program.table import ActionTable, Times
from coordinator.schedules import tabulate
from coordinator.schedules.search import Wanted, search
from stages.errors import UserMistake

MOST_SEARCHED = 4096
"""Workers × micro-batches of the largest program that is searched for: some ten seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleComparison:
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


def compare(
    question: ScheduleComparison, schedules: Sequence[str] = SCHEDULES, *, must_fit: bool = True
) -> list[Row | LeftOut]:
    """Return a row for each schedule. Raises UserMistake if every one keeps more than `memory` and one `must_fit`."""
    rows = [_row(question, schedule) for schedule in schedules]
    built = [row for row in rows if isinstance(row, Row)]
    if must_fit and built and not any(row.fits for row in built):
        least = min(built, key=lambda row: row.kept)
        raise UserMistake(
            f"memory: {question.memory:g} micro-batches a worker, but no schedule keeps so few; "
            f"the least is {least.kept:g}, of {least.schedule}"
        )
    return rows


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search found: its row, and the fastest built-in schedule that fits, with its step. There B's are performed
    as I and W, as by workers, so its step may be shorter than in its own row. None if no built-in one fits."""

    row: Row
    built_in: str | None
    built_in_stages: int | None
    built_in_step: float | None

    @property
    def gain(self) -> float | None:
        """By which share the step is shorter than that of the built-in schedule."""
        return None if self.built_in_step is None else 1 - self.row.step / self.built_in_step


def search_too(question: ScheduleComparison) -> Searched:
    """Return a program that is searched for these times (`coordinator.schedules.search`), with one or two stages a
    worker, whichever is faster. Raises UserMistake if none fits into the memory, or if it would take long."""
    if question.n_workers * question.n_micro_batches > MOST_SEARCHED:
        raise UserMistake(
            f"{question.n_workers:,} workers × {question.n_micro_batches:,} micro-batches are too many to search, "
            f"at most {MOST_SEARCHED:,}"
        )
    found = [(a_worker, search(_wanted(question, a_worker))) for a_worker in (1, 2)]
    able = [(answer.step, a_worker, answer) for a_worker, answer in found if answer is not None]
    if not able:
        raise UserMistake(f"memory: {question.memory:g} micro-batches a worker, but a worker keeps at least 1")
    _, a_worker, answer = min(able, key=lambda one: one[:2])
    timed = on_the_clock(answer.table, _times(question, a_worker), latency=question.latency)
    row = Row("auto", timed, max(kept(answer.table).together) / a_worker, fits=True)
    named = [(one.built_in_step, one.table.n_stages, one.built_in) for *_, one in able if one.built_in_step is not None]
    step, n_stages, name = min(named, default=(None, None, None))
    return Searched(row, name, n_stages, step)


def _wanted(question: ScheduleComparison, a_worker: int) -> Wanted:
    p, memory = question.n_workers, question.memory

    def fits(table: ActionTable) -> bool:
        return memory is None or max(kept(table).together) / a_worker <= memory

    return Wanted(
        n_stages=a_worker * p,
        n_micro_batches=question.n_micro_batches,
        n_workers=p,
        times=np.broadcast_to(_times(question, a_worker), (a_worker * p, 4)),
        latency=question.latency,
        fits=fits,
    )


def _times(question: ScheduleComparison, a_worker: int) -> Times:
    forward, backward, weight = question.times
    return np.array([forward, backward, weight, backward + weight]) / a_worker


def best(rows: Sequence[Row | LeftOut]) -> Row | None:
    """Return the row with the shortest step of those that fit; of equal ones, the one that keeps least."""
    fitting = [row for row in rows if isinstance(row, Row) and row.fits]
    return min(fitting, key=lambda row: (row.step, row.kept), default=None)


def _row(question: ScheduleComparison, schedule: str) -> Row | LeftOut:
    p, m = question.n_workers, question.n_micro_batches
    fewest = fewest_micro_batches(schedule, p)
    if m < fewest:
        return LeftOut(schedule, f"needs at least {fewest} micro-batches")
    a_worker = 2 if schedule in TWO_STAGES_A_WORKER else 1
    table = tabulate(schedule, n_stages=a_worker * p, n_micro_batches=m, n_workers=p)
    timed = on_the_clock(table, _times(question, a_worker), latency=question.latency)
    most = max(kept(table).together) / a_worker
    return Row(schedule, timed, most, question.memory is None or most <= question.memory)
