"""A short run with trackers, and the values that they must get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.trackers import Trackers
from cluster.trackers.tracker import Outcome
from coordinator.job.spec import JobSpec, parse_job
from coordinator.train.rows import EvalRow, StepRow
from tests.jobs import digits_job

TRAINED: dict[str, list[float]] = {
    "train/loss": [2.5, 1.25, 0.5],
    "train/accuracy": [0.25, 0.5, 0.75],
    "train/grad_norm": [1.0, 2.0, 3.0],
    "train/learning_rate": [0.125] * 3,
    "speed/samples_per_second": [512.0] * 3,
    "speed/step_seconds": [0.125] * 3,
    "pipeline/bubble": [0.375] * 3,
    "pipeline/bubble_predicted": [0.25, 0.25],  # the first step has none
}


def rows() -> list[StepRow | EvalRow]:
    """Return three steps and an evaluation after them."""
    steps: list[StepRow | EvalRow] = [
        StepRow(
            step=step,
            epoch=1,
            samples=64,
            loss=TRAINED["train/loss"][step - 1],
            seconds=0.125,
            grad_norm=float(step),
            learning_rate=0.125,
            bubble=0.375,
            accuracy=TRAINED["train/accuracy"][step - 1],
            bubble_predicted=0.25 if step > 1 else None,
        )
        for step in (1, 2, 3)
    ]
    return [*steps, EvalRow(step=3, epoch=1, loss=0.75, accuracy=0.875, samples=30)]


def tracked(**tracking: object) -> JobSpec:
    """Return the digits job with a `tracking` section."""
    return parse_job({**digits_job().document(), "tracking": tracking})


def run(spec: JobSpec, folder: Path, outcome: Outcome = "finished", *, attempt: int = 1, **options: Any) -> list[str]:
    """Pass rows to the trackers as a run does; return their warnings."""
    told: list[str] = []
    trackers = Trackers(spec, folder, attempt=attempt, warn=told.append, **options)
    for row in rows():
        trackers.row(row)
    trackers.close(outcome)
    return told
