"""Estimates the time of a step that is too large to perform, from three smaller ones of the same shape.

With as many micro-batches a worker, the time of a step is a straight line over the number of workers, for any times and
latency (tests/coordinator/test_large_lab.py compares it with programs). The line goes through the second and the third
program. The line through the first two is checked with the third, which has twice as many workers as the second; by how
much it missed is told beside the estimate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

_GROWTH = (1, 2, 4)
_WORKERS = 24
"""Workers of the smallest program."""
_ALIKE = 6
"""Schedules in a V differ for even and odd p, and for multiples of 3: all programs have the same remainder."""
_FEW = 32
"""Up to so many micro-batches, the programs have as many, and only the workers are fewer."""
_MOST_A_WORKER = 8
"""A program has at most so many micro-batches a worker; above, a step grows by the same time for each."""
_FEWEST = 16
"""Micro-batches of the smallest program, if a step has more."""
_MOST_WORKERS = 160
"""… unless it would need more workers than this."""
_LEAST_FOR_FEW, _MOST_FOR_FEW = 64, 256
"""Micro-batches of the smallest program, if a step has few workers."""


class ProgramSize(NamedTuple):
    """The size of a program."""

    workers: int
    micro_batches: int

    def __str__(self) -> str:
        return f"{self.workers:,} × {self.micro_batches:,}"


class PerformedStep(NamedTuple):
    """Times of a performed program: of its step, and the longest from a worker's first action to its last one."""

    step: float
    span: float


@dataclass(frozen=True, slots=True)
class Scaled:
    """An estimate. `sizes` are those of the three programs; `missed` is the share of its step by which the line through
    the first two missed the third one."""

    step: float
    span: float
    sizes: tuple[ProgramSize, ...]
    missed: float


def scale_up(size: ProgramSize, busy: float, perform: Callable[[ProgramSize], PerformedStep]) -> Scaled:
    """Return the estimate for a program of this size. `busy` is the time that a worker computes for one micro-batch;
    `perform` performs a smaller program."""
    p, m = size
    if p <= _GROWTH[-1] * _WORKERS:
        return _more_micro_batches(size, perform)
    few, ratio = m <= _FEW, min(m / p, _MOST_A_WORKER)
    first = _WORKERS
    if few:
        first = max(first, 2 * m)
    elif ratio * first < _FEWEST:
        first = min(_MOST_WORKERS, round(_FEWEST / ratio))
    workers = [growth * (first - first % _ALIKE) + p % _ALIKE for growth in _GROWTH]
    wanted = [m if few else ratio * one for one in workers]
    sizes = tuple(ProgramSize(one, max(1, round(many))) for one, many in zip(workers, wanted, strict=True))
    found = [perform(one) for one in sizes]
    off = [busy * (one.micro_batches - many) for one, many in zip(sizes, wanted, strict=True)]  # rounding

    def line(times: list[float]) -> tuple[float, float]:
        exact = [time - rounded for time, rounded in zip(times, off, strict=True)]
        missed = abs(_through(workers[:2], exact[:2], workers[2]) - exact[2]) / exact[2]
        return _through(workers[1:], exact[1:], p), missed

    step, missed = line([one.step for one in found])
    span, _ = line([one.span for one in found])
    rest = 0.0
    if not few and m > ratio * p:
        longer = ProgramSize(sizes[1].workers, sizes[1].micro_batches + 2 * workers[1])
        each = (perform(longer).step - found[1].step) / (2 * workers[1])
        rest = each * (m - ratio * p)
    return Scaled(step + rest, span + rest, sizes, missed)


def _more_micro_batches(size: ProgramSize, perform: Callable[[ProgramSize], PerformedStep]) -> Scaled:
    """Return the estimate for few workers: programs of as many workers with fewer micro-batches."""
    p, m = size
    first = min(max(8 * p, _LEAST_FOR_FEW), _MOST_FOR_FEW)
    counts = [growth * first + m % p for growth in _GROWTH]
    sizes = tuple(ProgramSize(p, count) for count in counts)
    found = [perform(one) for one in sizes]
    steps, spans = [one.step for one in found], [one.span for one in found]
    missed = abs(_through(counts[:2], steps[:2], counts[2]) - steps[2]) / steps[2]
    return Scaled(_through(counts[1:], steps[1:], m), _through(counts[1:], spans[1:], m), sizes, missed)


def _through(at: list[int], values: list[float], where: int) -> float:
    """Return the height of the straight line through two points."""
    (a, b), (x, y) = at, values
    return y + (y - x) / (b - a) * (where - b)
