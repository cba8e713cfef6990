"""What is in memory of a job's run, for metrics and pages: totals, distributions, short series and the last picture.

Fed with whole lines as the run directory grows, so that it is right again after the service was restarted. Nothing here
grows with the number of steps.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

STATS_KEPT_S = 300.0
"""How long the figures of a job that has ended stay to be scraped and looked at, in seconds."""
SERIES_POINTS = 1000
STEP_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
WAIT_BOUNDS_S = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 3600.0, 6 * 3600.0, 24 * 3600.0)


class Distribution:
    """A histogram: `counts[i]` values at most `bounds[i]` and above the bound before; the last count is of the rest."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        """`(upper bound, values at most that)`, as Prometheus wants it; the last bound is +Inf."""
        total, found = 0, []
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


class Series:
    """`(step, value)` points, at most SERIES_POINTS: when they are full every second one goes, so they stay evenly
    apart over the whole run. The newest point is always the last."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, float]] = []
        self._newest: tuple[int, float] | None = None
        self._every = 1
        self.version = 0
        """How many points there were; rises with every one."""

    def add(self, step: int, value: float) -> None:
        """Add a point."""
        self._newest = (step, value)
        if self.version % self._every == 0:
            self._kept.append(self._newest)
        self.version += 1
        if len(self._kept) >= SERIES_POINTS:
            del self._kept[1::2]
            self._every *= 2

    @property
    def points(self) -> list[tuple[int, float]]:
        """The points, oldest first."""
        if self._newest is None or (self._kept and self._kept[-1] == self._newest):
            return list(self._kept)
        return [*self._kept, self._newest]


SERIES = (
    "loss",
    "accuracy",
    "validation_loss",
    "validation_accuracy",
    "samples_per_second",
    "bubble",
    "bubble_predicted",
    "grad_norm",
)
"""Names of the series. Steps count from 1 in them: a point stands at the number of steps that were done."""


@dataclass(slots=True, kw_only=True)
class JobStats:
    """The present attempt of one job. `ended_at` is None while the job has not ended. Times are in seconds (UTC).

    `bubble_predicted` is that of the last step of whole size. `accounts` and `timeline` are the last line of
    accounts.jsonl and the last timeline.json; `losses` counts attempts that Ray's death ended, not those that a planned
    shutdown did.
    """

    job: str
    name: str
    attempt: int
    steps: int = 0
    samples: int = 0
    loss: float | None = None
    accuracy: float | None = None
    grad_norm: float | None = None
    learning_rate: float | None = None
    bubble: float | None = None
    bubble_predicted: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    step_seconds: Distribution = field(default_factory=lambda: Distribution(STEP_BOUNDS_S))
    accounts: Mapping[str, Any] | None = None
    timeline: Mapping[str, Any] | None = None
    series: dict[str, Series] = field(default_factory=lambda: {name: Series() for name in SERIES})
    losses: int = 0
    queue_wait_seconds: float | None = None
    ended_at: float | None = None

    @property
    def last_step_at(self) -> float | None:
        """When the last step ended."""
        return None if self.accounts is None else float(self.accounts["ended"])

    @property
    def placement(self) -> list[int]:
        """The worker of each stage; empty before the first step."""
        return [] if self.timeline is None else [entry["worker"] for entry in self.timeline["memory"]]

    def take_row(self, row: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl."""
        if row["kind"] == "step":
            self._take_step(row)
        elif row["kind"] == "eval":
            self.validation_loss, self.validation_accuracy = row["loss"], row.get("accuracy")
            self._points(row["step"], validation_loss=row["loss"], validation_accuracy=row.get("accuracy"))

    def _take_step(self, row: Mapping[str, Any]) -> None:
        self.steps = row["step"] + 1
        self.samples += row["samples"]
        self.loss, self.accuracy = row["loss"], row.get("accuracy")
        self.grad_norm, self.learning_rate = row["grad_norm"], row["learning_rate"]
        self.bubble, self.bubble_predicted = row["bubble"], row.get("bubble_predicted", self.bubble_predicted)
        self.step_seconds.observe(row["seconds"])
        self._points(
            self.steps,
            loss=self.loss,
            accuracy=self.accuracy,
            grad_norm=self.grad_norm,
            bubble=self.bubble,
            bubble_predicted=row.get("bubble_predicted"),
            samples_per_second=row["samples"] / row["seconds"],
        )

    def _points(self, step: int, **values: float | None) -> None:
        for name, value in values.items():
            if value is not None:
                self.series[name].add(step, value)
