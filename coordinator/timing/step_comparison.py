"""A predicted step beside the measured ones of a run, cause by cause.

measured = measured_step(lines, placement)
compare(prediction, measured).error
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from coordinator.timing.step_time import WAITING, PredictedStep
from stages.ledger import (
    FORWARD,
    INPUT_GRADIENT,
    OTHER,
    SEND,
    UPDATE,
    WAIT_DRAIN,
    WAIT_STEADY,
    WAIT_WARMUP,
    WEIGHT_GRADIENT,
)

COMPARED = ("forward", "input_gradient", "weight_gradient", "update", "send", "wait", "other")
"""The causes that accounts of a run tell apart."""
_OF_STAGE = {
    "forward": (FORWARD,),
    "input_gradient": (INPUT_GRADIENT,),
    "weight_gradient": (WEIGHT_GRADIENT,),
    "update": (UPDATE,),
    "send": (SEND,),
    "wait": (WAIT_WARMUP, WAIT_STEADY, WAIT_DRAIN),
}

ByWorker = tuple[Mapping[str, float], ...]
"""Seconds of a step by cause, for each worker."""


@dataclass(frozen=True, slots=True)
class MeasuredSteps:
    """The mean of `steps` steps, without evaluations, checkpoints and recoveries between them. `others` of them have
    another number of rows than the rest."""

    steps: int
    by_worker: ByWorker
    others: int = 0


def measured_steps(
    lines: Sequence[Mapping[str, Any]], placement: Sequence[int], others: Collection[int] = ()
) -> MeasuredSteps | None:
    """Return the mean of the steps between the first and the last of these lines of accounts.jsonl; None if they are
    fewer than two lines of one layout.

    `others` are the numbers of the steps with another number of rows. Two neighbouring lines with such a step between
    them are left out; only if that leaves nothing, because many steps share a line, all count.
    """
    other = set(others)
    all_pairs = [(before, after) for before, after in pairwise(lines) if after["step"] > before["step"]]
    alike = [(a, b) for a, b in all_pairs if other.isdisjoint(range(a["step"] + 1, b["step"] + 1))]
    pairs = alike or all_pairs
    if not pairs:
        return None
    steps = sum(last["step"] - first["step"] for first, last in pairs)
    found: list[dict[str, float]] = [dict.fromkeys(COMPARED, 0.0) for _ in lines[-1]["worker_us"]]
    for first, last in pairs:
        for worker, after, before in zip(placement, last["stage_us"], first["stage_us"], strict=True):
            for cause, kinds in _OF_STAGE.items():
                found[worker][cause] += sum(after[kind] - before[kind] for kind in kinds) / 1e6 / steps
        for row, after, before in zip(found, last["worker_us"], first["worker_us"], strict=True):
            row["other"] += (after[OTHER] - before[OTHER]) / 1e6 / steps
    counted = sum(step in other for first, last in pairs for step in range(first["step"] + 1, last["step"] + 1))
    return MeasuredSteps(steps, tuple(found), counted)


@dataclass(frozen=True)
class StepComparison:
    """A predicted step and the measured ones, in seconds, by worker and cause (COMPARED)."""

    predicted: ByWorker
    measured: ByWorker

    @cached_property
    def predicted_seconds(self) -> float:
        """The predicted time of a step."""
        return _longest(self.predicted)

    @cached_property
    def measured_seconds(self) -> float:
        """The mean of the measured steps."""
        return _longest(self.measured)

    @cached_property
    def error(self) -> float:
        """The share of the measured step by which the predicted one is longer; below 0, it is too short."""
        return self.predicted_seconds / self.measured_seconds - 1

    @cached_property
    def by_cause(self) -> Mapping[str, float]:
        """The seconds by which a step is longer than predicted, by cause: means of the workers."""
        n = len(self.measured)
        return {
            cause: sum(m[cause] - p[cause] for m, p in zip(self.measured, self.predicted, strict=True)) / n
            for cause in COMPARED
        }

    @cached_property
    def main_cause(self) -> str:
        """The cause with the largest difference."""
        return max(self.by_cause, key=lambda cause: abs(self.by_cause[cause]))


def compare(predicted: PredictedStep, measured: MeasuredSteps) -> StepComparison:
    """Return both, with the causes that they have in common: all waiting of the prediction is one cause."""
    rows = tuple(
        {**{cause: row[cause] for cause in COMPARED if cause != "wait"}, "wait": sum(row[cause] for cause in WAITING)}
        for row in predicted.by_worker
    )
    return StepComparison(rows, measured.by_worker)


def _longest(rows: ByWorker) -> float:
    return max(sum(row.values()) for row in rows)
