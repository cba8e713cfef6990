"""Sums over columns that do not depend on the machine: means, deviations, and what fills empty cells.

[Note: exact sums] A column is summed in blocks of 65,536 rows of the file: float64, each block by NumPy's pairwise
addition in one thread (no BLAS), the blocks' sums by `math.fsum`, which rounds once. So the bits follow from the
numbers and their rows alone, not from the number of threads or from how the file was read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.data.tables.cells import Mask, NumberCells, Numbers

BLOCK = 65_536
_LARGE = 1e140


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """`count` numbers: their mean, the standard deviation (divided by the count), the least and the greatest."""

    count: int
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class ChosenRows:
    """Some rows of a table: those that are True in `mask` (rows,). `blocks`: for each BLOCK rows their places in it."""

    mask: Mask
    blocks: tuple[NDArray[np.intp], ...]

    @staticmethod
    def of(mask: Mask) -> ChosenRows | None:
        """Return the rows that are True; None if these are all."""
        if mask.all():
            return None
        return ChosenRows(mask, tuple(np.flatnonzero(mask[a : a + BLOCK]) for a in range(0, len(mask), BLOCK)))


def chosen_blocks(cells: NumberCells, rows: ChosenRows | None) -> Iterator[Numbers]:
    """Yield the numbers of these rows (None: all rows) in new arrays, one for each block, without empty cells."""
    for k, start in enumerate(range(0, len(cells), BLOCK)):
        values = cells.block(start, start + BLOCK)
        if rows is not None:
            values = values.take(rows.blocks[k])
        if cells.has_gaps and cells.values.dtype.kind == "f":
            filled = values == values
            values = values if filled.all() else values[filled]
        if len(values):
            yield values


def moments(cells: NumberCells, rows: ChosenRows | None) -> Moments:
    """Return the moments of a column's numbers in these rows."""
    found = _moments(cells, rows, 1.0)
    greatest = max(abs(found.low), abs(found.high))
    if found.low < found.high and not (found.std > 1 / _LARGE and greatest < _LARGE):  # squares would be inf or 0
        unit = 2.0 ** min(1000, max(-1000, math.frexp(greatest)[1]))
        found = _moments(cells, rows, unit)
    return found


def _moments(cells: NumberCells, rows: ChosenRows | None, unit: float) -> Moments:
    """Return the moments, computed in multiples of `unit`, a power of two."""
    parts: list[tuple[int, float, float]] = []
    low, high = math.inf, -math.inf
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for values in chosen_blocks(cells, rows):
            if unit != 1.0:
                values = values / unit
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            mean = float(np.add.reduce(values)) / len(values)
            values -= mean
            np.square(values, out=values)
            parts.append((len(values), mean, float(np.add.reduce(values))))
    n = sum(count for count, _, _ in parts)
    if not n:
        return Moments(count=0, mean=0.0, std=0.0, low=0.0, high=0.0)
    if low == high:  # rounding would give a tiny deviation
        return Moments(count=n, mean=low * unit, std=0.0, low=low * unit, high=low * unit)
    try:
        mean = math.fsum(count * part for count, part, _ in parts) / n
        squares = math.fsum([*(s for _, _, s in parts), *(c * (m - mean) ** 2 for c, m, _ in parts)])
    except (OverflowError, ValueError):  # of infinities
        mean, squares = math.inf, math.inf
    return Moments(count=n, mean=mean * unit, std=math.sqrt(squares / n) * unit, low=low * unit, high=high * unit)


def median(cells: NumberCells, rows: ChosenRows | None) -> float:
    """Return the median; between two numbers, their mean."""
    values = _all(cells, rows)
    return float(np.median(values)) if len(values) else 0.0


def most_frequent(cells: NumberCells, rows: ChosenRows | None) -> float:
    """Return the number that occurs most; of several, the least."""
    values, counts = np.unique(_all(cells, rows), return_counts=True)
    return float(values[int(counts.argmax())]) if len(values) else 0.0


def _all(cells: NumberCells, rows: ChosenRows | None) -> NDArray[np.float64]:
    return np.concatenate([np.empty(0), *chosen_blocks(cells, rows)])
