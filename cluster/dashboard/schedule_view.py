"""The dry run of a schedule for any number of stages and micro-batches, for the schedule page and /api/schedule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cluster.dashboard.picture import Picture, make_picture
from coordinator.program.clock import Timed, as_papers_count, as_workers_do
from coordinator.program.kept import KeptPeaks, kept
from coordinator.schedules import SCHEDULES, default_workers, tabulate
from coordinator.texts import share
from stages.actions import Action, Kind
from stages.errors import UserMistake

MOST_STAGES, MOST_MICRO_BATCHES = 64, 256


@dataclass(frozen=True, slots=True)
class Question:
    """A schedule and its numbers. `workers` 0: as many as the schedule has by default. `backward`: the time of I, and
    of W, in forward passes."""

    schedule: str = "1f1b"
    stages: int = 4
    micro_batches: int = 8
    workers: int = 0
    backward: float = 1.0

    @property
    def n_workers(self) -> int:
        """The number of workers."""
        return self.workers or default_workers(self.schedule, self.stages)

    def problems(self) -> list[str]:
        """Return why the schedule cannot be drawn, a sentence for each reason; empty if it can."""
        found = []
        if self.schedule not in SCHEDULES:
            found.append(f"schedule: got {self.schedule[:50]}, must be one of {', '.join(SCHEDULES)}")
        for name, value, most in (
            ("stages", self.stages, MOST_STAGES),
            ("micro_batches", self.micro_batches, MOST_MICRO_BATCHES),
        ):
            if not 1 <= value <= most:
                found.append(f"{name}: got {value}, must be 1 to {most}")
        if not 0 <= self.workers <= max(self.stages, 1):
            found.append(
                f"workers: got {self.workers}, must be 1 to {self.stages}: each worker needs at least one stage"
            )
        if not 0.05 <= self.backward <= 20:
            found.append(f"backward: got {self.backward:g}, must be 0.05 to 20 times a forward pass")
        return found


@dataclass(frozen=True, slots=True, eq=False)
class DryRun:
    """A schedule as workers perform it, the micro-batches that it keeps, and, if it has B's, its bubble as papers count
    it (see coordinator.program.clock.as_papers_count)."""

    timed: Timed
    kept: KeptPeaks
    papers_bubble: float | None

    def spans(self) -> Spans:
        """Return (worker, action, start, end) of every action: F, I and W."""
        workers = range(self.timed.table.n_workers)
        return [(worker, *span) for worker in workers for span in self.timed.spans(worker)]


Spans = list[tuple[int, Action, float, float]]


@lru_cache(maxsize=32)
def perform(question: Question) -> DryRun:
    """Return the dry run; its times are in forward passes. Raises UserMistake with the `problems` of the question, or
    those of the schedule itself."""
    if problems := question.problems():
        raise UserMistake("\n".join(problems))
    table = tabulate(
        question.schedule,
        n_stages=question.stages,
        n_micro_batches=question.micro_batches,
        n_workers=question.workers or None,
    )
    b = question.backward
    times = np.array([1.0, b, b, 2 * b])
    papers = as_papers_count(table, times).bubble if Kind.BACKWARD in table.kinds() else None
    return DryRun(as_workers_do(table, times), kept(table), papers)


def picture_of(title: str, found: DryRun) -> Picture:
    """Return the picture of a dry run; its times are in forward passes."""
    timed = found.timed
    return make_picture([(title, found.spans())], timed.table.n_workers, f"{title}, bubble {share(timed.bubble)}")
