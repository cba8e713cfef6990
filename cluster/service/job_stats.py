"""What is in memory of a job's run, for metrics and pages: totals, distributions, short series and the last picture.

Fed with whole lines as the run directory grows, so that it is right again after the service was restarted. Nothing here
grows with the number of steps.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coordinator.timing.series import Rates, RecentSteps, Series
from coordinator.train.rows import EVAL_FIGURES, SERIES, STEP_FIGURES

_SPEED = "samples_per_second"
STATS_KEPT_S = 300.0
"""How long the figures of a job that has ended stay to be scraped and looked at, in seconds."""
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


_STEP_SERIES = tuple((one.name, one.shown.series) for one in STEP_FIGURES if one.shown.series and one.name != _SPEED)
_EVAL_SERIES = tuple((one.name, one.shown.series) for one in EVAL_FIGURES if one.shown.series)


@dataclass(slots=True, kw_only=True)
class JobStats:
    """The present attempt of one job. `ended_at` is None while the job has not ended. Times are in seconds (UTC).

    `series` has the points of each figure of the table (see coordinator.train.rows); a point stands at the number of
    updates made, and those of `samples_per_second` are Rates. `latest` has the last value of each that is known, which
    may be an earlier step's; `recent` the speed and bubble that are shown.
    `accounts` and `timeline` are the last line of accounts.jsonl and the last timeline.json; `losses` counts attempts
    that Ray's death ended, not those that a planned shutdown did.
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
    series: dict[str, Series | Rates] = field(init=False)
    _values: dict[str, Series] = field(init=False, repr=False)
    _rates: Rates = field(default_factory=Rates, init=False, repr=False)
    losses: int = 0
    queue_wait_seconds: float | None = None
    ended_at: float | None = None

    def __post_init__(self) -> None:
        self._values = {name: Series() for name in SERIES if name != _SPEED}
        self.series = {name: self._values.get(name, self._rates) for name in SERIES}

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
            self._take_figures(row, _EVAL_SERIES)

    def _take_step(self, row: Mapping[str, Any]) -> None:
        self.steps = row["step"]
        self.samples += row["samples"]
        self.step_seconds.observe(row["seconds"])
        self.recent.add(row["samples"], row["seconds"], row["bubble"])
        self._rates.add(self.steps, row["samples"], row["seconds"])
        self._take_figures(row, _STEP_SERIES)

    def _take_figures(self, row: Mapping[str, Any], names: Sequence[tuple[str, str]]) -> None:
        step = row["step"]
        for name, series in names:
            value = row.get(name)
            if value is not None:
                self.latest[series] = value
                self._values[series].add(step, value)
