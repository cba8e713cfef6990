"""Mean and median of many durations, in bounded memory."""

from __future__ import annotations

import math
from collections import Counter

STEP_MEAN, STEP_MEDIAN = "step_seconds_mean", "step_seconds_median"
"""The names of both for the last steps, in messages and in JobFigures.latest."""
_WIDTH = math.log(1.005)
"""Of a class of durations, on a logarithmic scale: a median is right to a quarter of a per cent."""
_LEAST_S = 1e-9


class Durations:
    """Durations in seconds, counted in classes. The mean is exact.

    A step that the system held up counts in the mean, and hardly in the median: their difference says how evenly a run
    goes.
    """

    def __init__(self) -> None:
        self._classes: Counter[int] = Counter()
        self.count = 0
        self._sum = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """Add a duration, or `times` equal ones."""
        self._classes[round(math.log(max(seconds, _LEAST_S)) / _WIDTH)] += times
        self.count += times
        self._sum += seconds * times

    def update(self, other: Durations) -> None:
        """Add all durations of another."""
        self._classes.update(other._classes)
        self.count += other.count
        self._sum += other._sum

    @property
    def mean(self) -> float | None:
        """The mean in seconds; None without durations."""
        return self._sum / self.count if self.count else None

    @property
    def median(self) -> float | None:
        """The median in seconds, of an even number the lower one of both in the middle; None without durations."""
        if not self.count:
            return None
        below, half = 0, (self.count + 1) // 2
        for place in sorted(self._classes):
            below += self._classes[place]
            if below >= half:
                return math.exp(place * _WIDTH)
        raise AssertionError("the classes have all durations")
