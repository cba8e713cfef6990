"""Laws of sums over columns: they follow from the numbers and their rows alone, and are exact as float64 allows."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.data.tables import moments as module
from cluster.data.tables.cells import NumberCells
from cluster.data.tables.moments import ChosenRows, median, moments, most_frequent

numbers = st.lists(
    st.floats(-1e6, 1e6) | st.integers(-3, 3).map(float) | st.just(math.nan), min_size=1, max_size=40
).map(np.array)


def chosen(values: np.ndarray, seed: int) -> np.ndarray:
    mask: np.ndarray = np.random.default_rng(seed).random(len(values)) < 0.7
    return mask


@given(numbers, st.integers(0, 9), st.integers(1, 9))
def test_moments_are_those_of_the_chosen_filled_cells(values: np.ndarray, seed: int, block: int) -> None:
    mask = chosen(values, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        rows = ChosenRows.of(mask)
        found = moments(NumberCells("a", values), rows)
        middle, most = median(NumberCells("a", values), rows), most_frequent(NumberCells("a", values), rows)
    own = [Fraction(v) for v in values[mask].tolist() if not math.isnan(v)]
    assert found.count == len(own)
    if not own:
        return
    mean = sum(own) / len(own)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in own) / len(own))
    largest = max(1.0, float(max(map(abs, own))))
    assert abs(found.mean - float(mean)) <= 1e-14 * largest
    assert abs(found.std - deviation) <= 1e-12 * largest
    assert (found.low, found.high) == (float(min(own)), float(max(own)))
    assert middle == float(np.median([float(v) for v in own]))
    counts = {v: own.count(v) for v in own}
    assert most == float(min(v for v, n in counts.items() if n == max(counts.values())))


@given(st.integers(1, 200), st.integers(0, 9))
def test_other_rows_and_the_type_of_storage_change_no_bit(n: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(-1000, 1000, n)
    mask = chosen(values, seed)
    others = np.where(mask, values, 10**9)
    first = moments(NumberCells("a", values), ChosenRows.of(mask))
    for again in (others, others.astype(np.float64), np.where(mask, values, np.nan)):
        assert moments(NumberCells("a", again), ChosenRows.of(mask)) == first


@pytest.mark.parametrize("unit", [1e-300, 1e-160, 1.0, 1e160, 1e300])
def test_a_unit_of_any_size_gives_the_same_shape(unit: float) -> None:
    found = moments(NumberCells("a", np.arange(10.0) * unit), None)
    assert found.mean == pytest.approx(4.5 * unit, rel=1e-14)
    assert found.std == pytest.approx(math.sqrt(8.25) * unit, rel=1e-14)


def test_a_constant_column_has_no_deviation_at_all() -> None:
    """The mean of 65,536 times 0.1 is not 0.1 in float64; scaling by the tiny deviation would give noise."""
    found = moments(NumberCells("a", np.full(65_536, 0.1)), None)
    assert (found.mean, found.std) == (0.1, 0.0)
