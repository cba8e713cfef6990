"""A job's figures, which the service keeps while the job runs and for a few minutes after its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cluster.wire import pipetrain_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFigures:
    """The figures of one worker. `microseconds` has its time since the attempt began by kind, and sums to its wall
    time; `bubble_predicted` is the idle share, from 0 to 1, that the schedule alone would have. Sizes are in bytes.
    None: unknown, or no limit."""

    worker: int
    host: str
    pid: int
    stages: tuple[int, ...]
    microseconds: dict[str, int]
    bubble_predicted: float | None
    peak_rss_bytes: int | None
    peak_job_bytes: int | None
    limit_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFigures:
    """The figures of the present attempt of a job: of its last steps and its last evaluation; None if there was none
    yet. `loss` and `accuracy` are means over the rows of the present epoch so far.

    `losses` are evenly spaced over the whole attempt, oldest first. `latest` has the last value of every known series,
    including those that are attributes here, and `step_seconds_mean` and `step_seconds_median` of the last 10 s, at
    least 10 steps.
    """

    id: str
    attempt: int
    step: int
    loss: float | None
    accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    samples_per_second: float | None
    bubble: float | None
    bubble_predicted: float | None
    losses: tuple[float, ...]
    latest: dict[str, float] = field(default_factory=dict)
    workers: tuple[WorkerFigures, ...]


def figures_from_wire(message: pb.JobStats) -> JobFigures:
    """Return the figures of a message."""
    workers = tuple(
        WorkerFigures(
            worker=worker.worker,
            host=worker.host,
            pid=worker.pid,
            stages=tuple(worker.stages),
            microseconds=dict(worker.microseconds),
            **_optional(worker, "bubble_predicted", "peak_rss_bytes", "peak_job_bytes", "limit_bytes"),
        )
        for worker in message.workers
    )
    return JobFigures(
        id=message.id,
        attempt=message.attempt,
        step=message.step,
        losses=tuple(message.losses),
        latest=dict(message.figures),
        workers=workers,
        **_optional(
            message,
            "loss",
            "accuracy",
            "validation_loss",
            "validation_accuracy",
            "samples_per_second",
            "bubble",
            "bubble_predicted",
        ),
    )


def _optional(message: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(message, name) if message.HasField(name) else None for name in names}
