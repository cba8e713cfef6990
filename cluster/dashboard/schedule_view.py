"""The dry run of a schedule for any number of stages and micro-batches, for the schedule page and /api/schedule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from cluster.dashboard.picture import Picture, make_picture
from coordinator.job.spec import JobSpec
from coordinator.program.replay import Replay, replay
from coordinator.schedules import SCHEDULES, build, default_workers
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


@lru_cache(maxsize=32)
def perform(question: Question) -> Replay:
    """Return the dry run. Raises UserMistake with the `problems` of the question, or those of the schedule itself."""
    if problems := question.problems():
        raise UserMistake("\n".join(problems))
    program = build(
        question.schedule,
        n_stages=question.stages,
        n_micro_batches=question.micro_batches,
        n_workers=question.workers or None,
    )
    b = question.backward
    times = {Kind.FORWARD: 1.0, Kind.BACKWARD_INPUT: b, Kind.BACKWARD_WEIGHT: b, Kind.BACKWARD: 2 * b}
    return replay(program, times)


Spans = list[tuple[int, Action, float, float]]


def spans(found: Replay) -> Spans:
    """Return (worker, action, start, end) of every action. A B becomes an I and a W, because a worker computes these
    two."""
    result: Spans = []
    for worker, lane in enumerate(found.spans):
        for action, start, end in lane:
            if action.kind is Kind.BACKWARD:
                half = (start + end) / 2
                result.append((worker, Action(action.stage, Kind.BACKWARD_INPUT, action.micro_batch), start, half))
                result.append((worker, Action(action.stage, Kind.BACKWARD_WEIGHT, action.micro_batch), half, end))
            else:
                result.append((worker, action, start, end))
    return result


def question_of(spec: JobSpec) -> Question:
    """Return the question for a full step of this job."""
    pipeline = spec.pipeline
    stages = len(spec.model.layers) if pipeline.stages == "auto" else pipeline.stages  # the most that it may become
    return Question(
        schedule=pipeline.schedule,
        stages=stages,
        micro_batches=spec.training.micro_batches,
        workers=pipeline.n_workers or 0,
    )


def dry_run(question: Question) -> Picture:
    """Return the picture of the dry run; its times are in forward passes. Raises UserMistake."""
    found = perform(question)
    return picture_of(f"{question.schedule}, the schedule's dry run", found)


def picture_of(title: str, found: Replay) -> Picture:
    """Return the picture of a dry run; its times are in forward passes."""
    return make_picture([(title, spans(found))], found.program.n_workers, f"{title}, bubble {share(found.bubble)}")
