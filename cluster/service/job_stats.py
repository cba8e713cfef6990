"""What is in memory of a job's run, for metrics and pages: totals, distributions, short series and the last picture.

Fed with whole lines as the run directory grows, so that it is right again after the service was restarted. Nothing here
grows with the number of steps.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

STATS_KEPT_S = 300.0
"""How long the figures of a job that has ended stay to be scraped and looked at, in seconds."""
SERIES_POINTS = 1000
RECENT_S = 10.0
"""Speeds and bubbles that are shown are those of about the last so many seconds."""
RECENT_STEPS = 10
"""And of no fewer steps than these, where a step takes long."""
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

    def thinned(self, most: int) -> list[tuple[int, float]]:
        """About that many of the points, evenly apart, the last one too."""
        points = self.points
        kept = points[:: max(1, math.ceil(len(points) / most))]
        if points and kept[-1] is not points[-1]:
            kept.append(points[-1])
        return kept


class _Piece(NamedTuple):
    """Steps that follow each other, up to `step`: what they made, in how many seconds."""

    step: int
    amount: float
    seconds: float

    @property
    def point(self) -> tuple[int, float]:
        return self.step, self.amount / self.seconds if self.seconds > 0 else math.nan


class Rates:
    """As a Series, of something a second: a point is the rate since the point before it, over all steps between them.
    When points are full, every two of them become one. The newest point is always the last."""

    def __init__(self) -> None:
        self._whole: list[_Piece] = []  # of `_every` steps each
        self._rest: _Piece | None = None  # of fewer steps
        self._every = 1
        self.version = 0
        """How many steps there were; rises with every one."""

    def add(self, step: int, amount: float, seconds: float) -> None:
        """A step made so much in so many seconds."""
        piece = _Piece(step, amount, seconds)
        self._rest = piece if self._rest is None else _joined([self._rest, piece])
        self.version += 1
        if self.version % self._every == 0:
            self._whole.append(self._rest)
            self._rest = None
        if len(self._whole) >= SERIES_POINTS:
            self._whole = _in_groups(self._whole, 2)
            self._every *= 2

    @property
    def points(self) -> list[tuple[int, float]]:
        """The points, oldest first. The last one is of the most steps: what is no whole piece yet is its part."""
        return [piece.point for piece in self._pieces]

    def thinned(self, most: int) -> list[tuple[int, float]]:
        """At most that many points, evenly apart, each the rate since the one before it."""
        pieces = self._pieces
        return [piece.point for piece in _in_groups(pieces, max(1, math.ceil(len(pieces) / most)))]

    @property
    def _pieces(self) -> list[_Piece]:
        if self._rest is None:
            return list(self._whole)
        return [*self._whole[:-1], _joined([*self._whole[-1:], self._rest])]


def _joined(pieces: Sequence[_Piece]) -> _Piece:
    return _Piece(pieces[-1].step, sum(p.amount for p in pieces), sum(p.seconds for p in pieces))


def _in_groups(pieces: Sequence[_Piece], size: int) -> list[_Piece]:
    """Every so many of them joined; the last ones, where they are fewer, with the group before."""
    ends = [*range(size, len(pieces) - size + 1, size), len(pieces)]
    return [_joined(pieces[begin:end]) for begin, end in zip([0, *ends[:-1]], ends, strict=True) if begin < end]


class _Recent(NamedTuple):
    """Steps that follow each other. `idle`: seconds of their time, as a mean of the workers, that were bubble."""

    steps: int
    samples: int
    seconds: float
    idle: float


class RecentSteps:
    """The steps of about the last RECENT_S, and no fewer than RECENT_STEPS. A single step's speed says little: one that
    the system held up is several times as slow as its neighbours."""

    def __init__(self) -> None:
        self._seen: deque[_Recent] = deque()  # bounded: neighbours are joined up to a fiftieth of RECENT_S

    def add(self, samples: int, seconds: float, bubble: float) -> None:
        """A step: its samples, its seconds, and the share of them that was bubble."""
        if self._seen and self._seen[-1].seconds + seconds <= RECENT_S / 50:
            before = self._seen.pop()
            self._seen.append(
                _Recent(
                    before.steps + 1, before.samples + samples, before.seconds + seconds, before.idle + bubble * seconds
                )
            )
            return
        self._seen.append(_Recent(1, samples, seconds, bubble * seconds))
        steps, time = sum(seen.steps for seen in self._seen), self._seconds
        while steps - self._seen[0].steps >= RECENT_STEPS and time - self._seen[0].seconds >= RECENT_S:
            gone = self._seen.popleft()
            steps, time = steps - gone.steps, time - gone.seconds

    @property
    def samples_per_second(self) -> float | None:
        """All their samples over all their seconds; None before the first step."""
        seconds = self._seconds
        return sum(seen.samples for seen in self._seen) / seconds if seconds > 0 else None

    @property
    def bubble(self) -> float | None:
        """The idle share of all their time; None before the first step."""
        seconds = self._seconds
        return sum(seen.idle for seen in self._seen) / seconds if seconds > 0 else None

    @property
    def _seconds(self) -> float:
        return sum(seen.seconds for seen in self._seen)


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
"""Names of the series. A point stands at the number of updates made. Points of `samples_per_second` are Rates."""


@dataclass(slots=True, kw_only=True)
class JobStats:
    """The present attempt of one job. `ended_at` is None while the job has not ended. Times are in seconds (UTC).

    `recent` has the speed and bubble that are shown. `bubble_predicted` is that of the last step of whole size.
    `accounts` and `timeline` are the last line of accounts.jsonl and the last timeline.json; `losses` counts attempts
    that Ray's death ended, not those that a planned shutdown did.
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
    bubble_predicted: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
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
        self._values = {name: Series() for name in SERIES if name != "samples_per_second"}
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
            self.validation_loss, self.validation_accuracy = row["loss"], row.get("accuracy")
            self._points(row["step"], validation_loss=row["loss"], validation_accuracy=row.get("accuracy"))

    def _take_step(self, row: Mapping[str, Any]) -> None:
        self.steps = row["step"]
        self.samples += row["samples"]
        self.loss, self.accuracy = row["loss"], row.get("accuracy")
        self.grad_norm, self.learning_rate = row["grad_norm"], row["learning_rate"]
        self.bubble_predicted = row.get("bubble_predicted", self.bubble_predicted)
        self.step_seconds.observe(row["seconds"])
        self.recent.add(row["samples"], row["seconds"], row["bubble"])
        self._rates.add(self.steps, row["samples"], row["seconds"])
        self._points(
            self.steps,
            loss=self.loss,
            accuracy=self.accuracy,
            grad_norm=self.grad_norm,
            bubble=row["bubble"],
            bubble_predicted=row.get("bubble_predicted"),
        )

    def _points(self, step: int, **values: float | None) -> None:
        for name, value in values.items():
            if value is not None:
                self._values[name].add(step, value)
