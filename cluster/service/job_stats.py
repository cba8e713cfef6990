"""A job's figures in memory, for metrics and pages: totals, distributions, short series and the last step's timeline.

All of them follow from the lines of the run directory, so they are complete again after a restart of the service. Their
size does not grow with the number of steps.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.service.survival import Survival
from coordinator.timing.epoch_means import EpochMeans, loss_per_row
from coordinator.timing.series import Rates, RecentSteps, Series
from coordinator.train.rows import EVAL_FIGURES, SERIES, STEP_FIGURES

_SPEED = "samples_per_second"
STATS_KEPT_S = 300.0
"""How long the figures of a job are kept after its end, for scrapes and pages, in seconds."""
STEP_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
WAIT_BOUNDS_S = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 3600.0, 6 * 3600.0, 24 * 3600.0)


class Distribution:
    """A histogram. `counts[i]` is the number of values from above `bounds[i - 1]` up to `bounds[i]`; the last count is
    the number of values above all bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def cumulative(self) -> list[tuple[str, float]]:
        """Return pairs (upper bound, number of values up to it) in Prometheus' form; the last bound is +Inf."""
        total, found = 0, []
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


def row_loss(row: Mapping[str, Any]) -> float:
    """Return the loss of a line of metrics.jsonl. A sum is divided by the number of rows."""
    return loss_per_row(row["loss"], row.get("samples", 0), summed=row.get("summed", False))


def take_step(means: EpochMeans, row: Mapping[str, Any]) -> None:
    """Add a step's line of metrics.jsonl to the means."""
    means.take(
        epoch=row.get("epoch", 1),
        samples=row.get("samples", 1),
        loss=row["loss"],
        accuracy=row.get("accuracy"),
        summed=row.get("summed", False),
        counted=row.get("counted"),
    )


_STEP_SERIES = tuple((one.name, one.shown.series) for one in STEP_FIGURES if one.shown.series and one.name != _SPEED)
_EVAL_SERIES = tuple((one.name, one.shown.series) for one in EVAL_FIGURES if one.shown.series)


@dataclass(slots=True, kw_only=True)
class JobStats:
    """The figures of one job's present attempt. `ended_at` is None until the job has ended. Times are in seconds (UTC).

    `series` has the points of each figure of the table (see coordinator.train.rows), by the number of updates made; the
    points of `samples_per_second` are Rates. A point of a loss belongs to one step; a summed loss is divided by the
    rows. `latest` has the last known value of each figure, which may be an earlier step's; for training loss and
    accuracy it has the mean over the present epoch so far. `recent` has the speed and bubble that are shown.
    `accounts` and `timeline` are the last line of accounts.jsonl and the last timeline.json. `losses` counts attempts
    that ended because Ray died, not those that a planned shutdown ended. `survival` is over all attempts.
    """

    job: str
    name: str
    attempt: int
    steps: int = 0
    samples: int = 0
    latest: dict[str, float] = field(default_factory=dict)
    step_seconds: Distribution = field(default_factory=lambda: Distribution(STEP_BOUNDS_S))
    accounts: Mapping[str, Any] | None = None
    timeline: Mapping[str, Any] | None = None
    recent: RecentSteps = field(default_factory=RecentSteps)
    means: EpochMeans = field(default_factory=EpochMeans)
    series: dict[str, Series | Rates] = field(init=False)
    _values: dict[str, Series] = field(init=False, repr=False)
    _rates: Rates = field(default_factory=Rates, init=False, repr=False)
    survival: Survival = field(default_factory=Survival)
    losses: int = 0
    queue_wait_seconds: float | None = None
    ended_at: float | None = None

    def __post_init__(self) -> None:
        self._values = {name: Series() for name in SERIES if name != _SPEED}
        self.series = {name: self._values.get(name, self._rates) for name in SERIES}

    @property
    def last_step_at(self) -> float | None:
        """When the last step ended, in seconds UTC; None before the first one."""
        return None if self.accounts is None else float(self.accounts["ended"])

    @property
    def placement(self) -> list[int]:
        """The worker of each stage; empty before the first timeline is read."""
        return [] if self.timeline is None else [entry["worker"] for entry in self.timeline["memory"]]

    def take_row(self, row: Mapping[str, Any]) -> None:
        """Add a line of metrics.jsonl."""
        if row["kind"] == "step":
            self._take_step(row)
        elif row["kind"] == "eval":
            self._take_figures(row, _EVAL_SERIES)

    def _take_step(self, row: Mapping[str, Any]) -> None:
        self.steps = row["step"]
        self.samples += row["samples"]
        steps = row.get("steps", 1)
        self.step_seconds.observe(row["seconds"] / steps, steps)
        self.recent.add(row["samples"], row["seconds"], row["bubble"], steps)
        self._rates.add(self.steps, row["samples"], row["seconds"])
        self._take_figures(row, _STEP_SERIES)
        take_step(self.means, row)
        means = {"loss": self.means.loss, "accuracy": self.means.accuracy}
        self.latest.update({name: value for name, value in means.items() if value is not None})

    def _take_figures(self, row: Mapping[str, Any], names: Sequence[tuple[str, str]]) -> None:
        step = row["step"]
        for name, series in names:
            value = row_loss(row) if name == "loss" else row.get(name)
            if value is not None:
                self.latest[series] = value
                self._values[series].add(step, value)
