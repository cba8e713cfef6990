"""All built-in schedules side by side: the same network on the same number of workers, for given times.

for row in compare(ScheduleComparison(n_workers=8, n_micro_batches=32)):
    print(row.schedule, row.step, row.bubble, row.kept)

[Note: large comparisons] Programs that would take long to perform are not made. The step follows from a law
(`step_laws`) if there is one for the numbers, else it is estimated from smaller programs (`scaling`); what is kept and
sent always follows from a law. `Row.origin` says which. A picture then shows a smaller program of the same shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from coordinator.job.schedule_names import SCHEDULES, TWO_STAGES_A_WORKER, fewest_micro_batches
from coordinator.program.clock import Timed, as_workers_do
from coordinator.program.kept import kept
from coordinator.program.table import ActionTable, Times
from coordinator.schedules import tabulate
from coordinator.schedules.search import Wanted, search
from coordinator.texts import counted, exact, number, share, some
from coordinator.timing.scaling import PerformedStep, ProgramSize, Scaled, scale_up
from coordinator.timing.step_laws import StepLaw, kept_by_law, messages_by_law, step_by_law
from stages.errors import UserMistake

MOST_SEARCHED = 4096
"""Workers × micro-batches of the largest program that is searched for: some ten seconds."""
MOST_WORK = 10_000_000
"""The most `work` of a comparison whose programs are all performed: about ten seconds."""
_LITTLE_WORK = 1_000_000
"""A program without a law that needs at most this `work` is performed, as the programs for an estimate would take as
long."""
_ROUNDING = 1e-9
_DRAWN = ProgramSize(24, 96)
"""The largest program that is made for a picture only."""

Origin = Literal["program", "law", "estimate"]


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

    @property
    def busy(self) -> float:
        """The time in which a worker computes in a step."""
        return self.n_micro_batches * sum(self.times)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Row:
    """One schedule. `step` and `span` (the longest time from a worker's first action to its last one) are in the
    question's unit. `kept` are micro-batches of a worker's whole layers: with two stages a worker, one stage's
    micro-batch counts as a half. `timed` is the program, or a smaller one if `origin` is not "program"; see
    [Note: large comparisons]."""

    schedule: str
    n_stages: int
    step: float
    span: float
    busy: float
    kept: float
    messages: int
    fits: bool
    timed: Timed
    origin: Origin = "program"
    scaled: Scaled | None = None

    @property
    def bubble(self) -> float:
        """Idle share of all workers' time; see [Note: two bubbles] in coordinator.program.clock."""
        return 1 - self.busy / self.step

    @property
    def bubble_rate(self) -> float:
        """The bubble without the staggered begin and end."""
        return 1 - self.busy / self.span

    def step_text(self) -> str:
        """Return the step as a text: with all digits if it is exact, with four if it is an estimate."""
        return number(self.step) if self.origin == "estimate" else exact(self.step)

    def origin_text(self) -> str:
        """Return where the step comes from as a text: `program`, `law`, or `estimate ±0.02%`."""
        return self.origin if self.scaled is None else f"{self.origin} ±{share(self.scaled.missed, 2)}"

    def as_dict(self) -> dict[str, object]:
        """Return the figures as plain values."""
        scaled = self.scaled
        return {
            "schedule": self.schedule,
            "stages": self.n_stages,
            "step": self.step,
            "in_a_row": self.span,
            "bubble": self.bubble,
            "bubble_rate": self.bubble_rate,
            "kept": self.kept,
            "fits": self.fits,
            "messages": self.messages,
            "origin": self.origin,
            "estimated_from": None if scaled is None else [list(size) for size in scaled.sizes],
            "missed": None if scaled is None else scaled.missed,
        }


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A schedule that cannot be built for these numbers, and why."""

    schedule: str
    why: str

    def as_dict(self) -> dict[str, object]:
        """Return the reason as plain values."""
        return {"schedule": self.schedule, "left_out": self.why}


def compare(
    question: ScheduleComparison,
    schedules: Sequence[str] = SCHEDULES,
    *,
    must_fit: bool = True,
    most_work: int = MOST_WORK,
) -> list[Row | LeftOut]:
    """Return a row for each schedule. Programs are performed if they need at most `most_work` together. Raises
    UserMistake if every one keeps more than `memory` and one `must_fit`."""
    size = ProgramSize(question.n_workers, question.n_micro_batches)
    performed = sum(work(schedule, size) for schedule in schedules) <= most_work
    rows = [_row(question, schedule, performed=performed) for schedule in schedules]
    built = [row for row in rows if isinstance(row, Row)]
    if must_fit and built and not any(row.fits for row in built):
        least = min(built, key=lambda row: row.kept)
        raise UserMistake(
            f"memory: {exact(question.memory or 0)} micro-batches a worker, but no schedule keeps so few; "
            f"the least is {exact(least.kept)}, of {least.schedule}"
        )
    return rows


def work(schedule: str, size: ProgramSize) -> int:
    """Return about how many µs it takes to make and perform a program."""
    p, m = size
    return (3 if schedule in TWO_STAGES_A_WORKER else 1) * (p + m) * (350 + p)


@dataclass(frozen=True, slots=True)
class Searched:
    """What a search found: its row, and the fastest built-in schedule that fits, with its stages and its step. None if
    no built-in one fits."""

    row: Row
    built_in: str | None
    built_in_stages: int | None
    built_in_step: float | None

    @property
    def gain(self) -> float | None:
        """By which share the step is shorter than that of the built-in schedule."""
        return None if self.built_in_step is None else 1 - self.row.step / self.built_in_step

    def gain_text(self) -> str:
        """Return the gain as a line of text; empty if no built-in schedule fits."""
        if self.gain is None or self.built_in_stages is None:
            return ""
        other = f"{self.built_in} with {counted(self.built_in_stages, 'stage')}, the best built-in one"
        return f"auto is {self.gain:.1%} shorter than {other}" if self.gain >= 0.0005 else f"auto is as long as {other}"


def search_too(question: ScheduleComparison, most: int = MOST_SEARCHED) -> Searched:
    """Return a program that is searched for these times (`coordinator.schedules.search`), with one or two stages a
    worker, whichever is faster. Raises UserMistake if none fits into the memory, or for more than `most` workers ×
    micro-batches."""
    if question.n_workers * question.n_micro_batches > most:
        raise UserMistake(
            f"{question.n_workers:,} workers × {question.n_micro_batches:,} micro-batches are too many to search, "
            f"at most {most:,}"
        )
    found = [(a_worker, search(_wanted(question, a_worker))) for a_worker in (1, 2)]
    able = [(answer.step, a_worker, answer) for a_worker, answer in found if answer is not None]
    if not able:
        raise UserMistake(
            f"memory: {exact(question.memory or 0)} micro-batches a worker, but a worker keeps at least 1"
        )
    _, a_worker, answer = min(able, key=lambda one: one[:2])
    row = _performed(question, "auto", answer.table, a_worker)
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
    """Return the row with the shortest step of those that fit; of equal ones, the one that keeps least, then the one
    with the fewest messages, then the first one: SCHEDULES begins with the simplest."""
    return min(_alike(rows), key=lambda row: (row.kept, row.messages), default=None)


def shortest_text(question: ScheduleComparison, rows: Sequence[Row | LeftOut]) -> str:
    """Return which step is shortest, and which are as short; empty if none fits."""
    found = best(rows)
    if found is None:
        return ""
    memory = question.memory
    within = "" if memory is None else f" of those that keep at most {exact(memory)} micro-batches a worker"
    others = [row.schedule for row in _alike(rows) if row is not found]
    equal = f" (as short, but keep or send no less: {some(others)})" if others else ""
    return f"shortest step{within}: {found.schedule}, {found.step_text()}{equal}"


def _alike(rows: Sequence[Row | LeftOut]) -> list[Row]:
    """Return the rows that fit with the shortest step, but for rounding."""
    fitting = [row for row in rows if isinstance(row, Row) and row.fits]
    shortest = min((row.step for row in fitting), default=0.0)
    return [row for row in fitting if row.step <= shortest * (1 + _ROUNDING)]


def comparison_document(
    question: ScheduleComparison, rows: Sequence[Row | LeftOut], searched: Searched | None = None
) -> dict[str, Any]:
    """Return a comparison as plain values: what `lab --json` prints and /api/lab answers."""
    forward, backward, weight = question.times
    found = best(rows)
    return {
        "workers": question.n_workers,
        "micro_batches": question.n_micro_batches,
        "times": {"F": forward, "I": backward, "W": weight},
        "latency": question.latency,
        "memory": question.memory,
        "shortest": None if found is None else found.schedule,
        "gain": None if searched is None else searched.gain,
        "schedules": [row.as_dict() for row in rows],
    }


def how_estimated(rows: Sequence[Row | LeftOut]) -> list[str]:
    """Return what laws and estimates are, a line for each; none if all programs were performed."""
    built = [row for row in rows if isinstance(row, Row)]
    lines = []
    if any(row.origin != "program" for row in built):
        lines.append("too large to perform: what is kept and sent is exact, by the laws of the schedules")
    if any(row.origin == "law" for row in built):
        lines.append("law: the step is exact, by the law of the schedule for these times")
    sizes = list(dict.fromkeys(row.scaled.sizes for row in built if row.scaled is not None))
    for small, middle, large in sizes:
        lines.append(
            f"estimate: a straight line through programs of {middle} and {large} (workers × micro-batches); ±: by how "
            f"much the line through {small} and {middle} missed {large}"
        )
    return lines


def _row(question: ScheduleComparison, schedule: str, *, performed: bool) -> Row | LeftOut:
    p, m = question.n_workers, question.n_micro_batches
    fewest = fewest_micro_batches(schedule, p)
    if m < fewest:
        return LeftOut(schedule, f"needs at least {fewest:,} micro-batches")
    a_worker = 2 if schedule in TWO_STAGES_A_WORKER else 1
    law = None if performed else step_by_law(schedule, p, m, question.times, question.latency)
    if performed or (law is None and work(schedule, ProgramSize(p, m)) <= _LITTLE_WORK):
        return _performed(question, schedule, _table(schedule, ProgramSize(p, m)), a_worker)
    return _large(question, schedule, a_worker, law)


def _performed(question: ScheduleComparison, schedule: str, table: ActionTable, a_worker: int) -> Row:
    timed = as_workers_do(table, _times(question, a_worker), latency=question.latency)
    most = max(kept(table).together) / a_worker
    return Row(
        schedule=schedule,
        n_stages=table.n_stages,
        step=timed.makespan,
        span=timed.longest_span,
        busy=question.busy,
        kept=most,
        messages=timed.messages,
        fits=question.memory is None or most <= question.memory,
        timed=timed,
    )


def _large(question: ScheduleComparison, schedule: str, a_worker: int, law: StepLaw | None) -> Row:
    """Return the row of a program that is not performed ([Note: large comparisons])."""
    p, m = question.n_workers, question.n_micro_batches

    @cache
    def perform(size: ProgramSize) -> Timed:
        table = _table(schedule, size)
        return as_workers_do(table, _times(question, a_worker), latency=question.latency)

    scaled = None
    if law is None:
        one = sum(question.times)
        scaled = scale_up(
            ProgramSize(p, m), one, lambda size: PerformedStep(perform(size).makespan, perform(size).longest_span)
        )
    found = law or scaled
    assert found is not None, "there is an estimate if there is no law"
    drawn = scaled.sizes[-1] if scaled is not None else _smaller(schedule, ProgramSize(p, m))
    most = kept_by_law(schedule, p, m)
    return Row(
        schedule=schedule,
        n_stages=a_worker * p,
        step=found.step,
        span=found.span,
        busy=question.busy,
        kept=most,
        messages=messages_by_law(schedule, p, m),
        fits=question.memory is None or most <= question.memory,
        timed=perform(drawn),
        origin="law" if scaled is None else "estimate",
        scaled=scaled,
    )


def _smaller(schedule: str, size: ProgramSize) -> ProgramSize:
    """Return the size of a program of about the same shape that is small enough to draw."""
    by = max(1.0, size.workers / _DRAWN.workers, size.micro_batches / _DRAWN.micro_batches)
    workers = max(1, round(size.workers / by))
    return ProgramSize(workers, max(fewest_micro_batches(schedule, workers), round(size.micro_batches / by)))


def _table(schedule: str, size: ProgramSize) -> ActionTable:
    a_worker = 2 if schedule in TWO_STAGES_A_WORKER else 1
    return tabulate(
        schedule, n_stages=a_worker * size.workers, n_micro_batches=size.micro_batches, n_workers=size.workers
    )
