"""Figures of a run over its steps, in memory that does not grow with them: series for charts, and the speed of late."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

SERIES_POINTS = 1000
RECENT_S = 10.0
"""Speeds and bubbles that are shown are those of about the last so many seconds."""
RECENT_STEPS = 10
"""And of no fewer steps than these, where a step takes long."""


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
