"""Figures of a run over its steps, in bounded memory: series for charts, and the recent speed."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from coordinator.timing.durations import Durations

SERIES_POINTS = 1000
RECENT_S = 10.0
"""Pages and commands show speeds and bubbles of about the last so many seconds, …"""
RECENT_STEPS = 10
"""… but of at least this many steps if steps take long."""


Steps = tuple[int, int] | None
"""The first and the last of a range of steps; None for all steps."""


class Series:
    """A series of `(step, value)` points, at most SERIES_POINTS: when it is full, every second point is removed, so
    points stay evenly spaced over the whole run. The last point is always the newest."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, float]] = []
        self._newest: tuple[int, float] | None = None
        self._every = 1
        self.version = 0
        """How many points were added so far."""

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

    def thinned(self, most: int, steps: Steps = None) -> list[tuple[int, float]]:
        """Return about `most` points of these steps, evenly spaced and including the last one."""
        points = [point for point in self.points if steps is None or steps[0] <= point[0] <= steps[1]]
        kept = points[:: max(1, math.ceil(len(points) / most))]
        if points and kept[-1] is not points[-1]:
            kept.append(points[-1])
        return kept


class _Piece(NamedTuple):
    """Consecutive steps up to `step`: the amount that they made, and their seconds."""

    step: int
    amount: float
    seconds: float

    @property
    def point(self) -> tuple[int, float]:
        return self.step, self.amount / self.seconds if self.seconds > 0 else math.nan


class Rates:
    """Like a Series, for amounts a second: a point is the rate since the point before it, over all steps between them.
    When the series is full, every two points become one. The last point is always the newest."""

    def __init__(self) -> None:
        self._whole: list[_Piece] = []  # of `_every` steps each
        self._rest: _Piece | None = None  # of fewer steps
        self._every = 1
        self.version = 0
        """How many steps were added so far."""

    def add(self, step: int, amount: float, seconds: float) -> None:
        """Add a step that made `amount` in `seconds`."""
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
        """The points, oldest first. The last point may cover more steps than the others: it includes an incomplete
        piece."""
        return [piece.point for piece in self._pieces]

    def thinned(self, most: int, steps: Steps = None) -> list[tuple[int, float]]:
        """Return at most `most` points of these steps, evenly spaced, each the rate since the point before it."""
        pieces = [piece for piece in self._pieces if steps is None or steps[0] <= piece.step <= steps[1]]
        return [piece.point for piece in _in_groups(pieces, max(1, math.ceil(len(pieces) / most)))]

    @property
    def _pieces(self) -> list[_Piece]:
        if self._rest is None:
            return list(self._whole)
        return [*self._whole[:-1], _joined([*self._whole[-1:], self._rest])]


def _joined(pieces: Sequence[_Piece]) -> _Piece:
    return _Piece(pieces[-1].step, sum(p.amount for p in pieces), sum(p.seconds for p in pieces))


def _in_groups(pieces: Sequence[_Piece], size: int) -> list[_Piece]:
    """Join every `size` pieces into one; fewer at the end join the group before them."""
    ends = [*range(size, len(pieces) - size + 1, size), len(pieces)]
    return [_joined(pieces[begin:end]) for begin, end in zip([0, *ends[:-1]], ends, strict=True) if begin < end]


class _Recent(NamedTuple):
    """Consecutive steps. `idle` is the part of their seconds that was bubble, as a mean of the workers."""

    steps: int
    samples: int
    seconds: float
    idle: float
    durations: Durations


class RecentSteps:
    """The steps of about the last RECENT_S seconds, at least RECENT_STEPS steps. The speed of a single step says
    little: a step that the system held up is several times as slow as its neighbours."""

    def __init__(self) -> None:
        self._seen: deque[_Recent] = deque()  # bounded: neighbours are joined up to a fiftieth of RECENT_S

    def add(self, samples: int, seconds: float, bubble: float, joined: int = 1) -> None:
        """Add a step, or so many `joined` ones: samples, seconds, and the share of the seconds that was bubble."""
        if self._seen and self._seen[-1].seconds + seconds <= RECENT_S / 50:
            steps, before_samples, before_seconds, idle, durations = self._seen.pop()
            durations.add(seconds / joined, joined)
            now = before_samples + samples, before_seconds + seconds, idle + bubble * seconds
            self._seen.append(_Recent(steps + 1, *now, durations))
            return
        durations = Durations()
        durations.add(seconds / joined, joined)
        self._seen.append(_Recent(1, samples, seconds, bubble * seconds, durations))
        steps, time = sum(seen.steps for seen in self._seen), self._seconds
        while steps - self._seen[0].steps >= RECENT_STEPS and time - self._seen[0].seconds >= RECENT_S:
            gone = self._seen.popleft()
            steps, time = steps - gone.steps, time - gone.seconds

    @property
    def samples_per_second(self) -> float | None:
        """The samples of these steps divided by their seconds; None before the first step."""
        seconds = self._seconds
        return sum(seen.samples for seen in self._seen) / seconds if seconds > 0 else None

    @property
    def bubble(self) -> float | None:
        """The idle share of the time of these steps; None before the first step."""
        seconds = self._seconds
        return sum(seen.idle for seen in self._seen) / seconds if seconds > 0 else None

    @property
    def durations(self) -> Durations:
        """How long these steps took."""
        found = Durations()
        for seen in self._seen:
            found.update(seen.durations)
        return found

    @property
    def _seconds(self) -> float:
        return sum(seen.seconds for seen in self._seen)
