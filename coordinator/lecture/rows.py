"""The table of the lecture: a row for every value and derivative, computed three ways, and how far they are apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from coordinator.lecture.formulae import Values, by_hand, finite_difference, slope, symbol, weight_letter
from coordinator.lecture.networks import DEPTH, LectureNetwork
from coordinator.lecture.pipeline import pipeline_values
from stages.arrays import Array

FORMULA_TOLERANCE = 1e-12
"""Pipeline against formula: the same mathematics in another order of additions, a few roundings of 1e-16 apart."""

DIFFERENCE_TOLERANCE = 1e-9
"""Pipeline against finite difference: the accuracy that `derivative` must reach, and easily does."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LectureRow:
    """One value computed three ways, all of the same shape. `finite_difference` is None if the value is no
    derivative."""

    symbol: str
    formula: str
    pipeline: Array
    by_hand: Array
    finite_difference: Array | None

    @property
    def from_formula(self) -> float:
        """Largest |pipeline − by_hand| / max(1, |by_hand|) of any entry."""
        return _apart(self.pipeline, self.by_hand)

    @property
    def from_difference(self) -> float | None:
        """Largest distance of the finite difference from the pipeline or the formula, measured the same way."""
        if self.finite_difference is None:
            return None
        return max(_apart(self.pipeline, self.finite_difference), _apart(self.by_hand, self.finite_difference))

    @property
    def agrees(self) -> bool:
        """Whether both distances are within their tolerances; False for NaN."""
        far = self.from_difference
        return self.from_formula <= FORMULA_TOLERANCE and (far is None or far <= DIFFERENCE_TOLERANCE)

    def as_dict(self) -> dict[str, Any]:
        """The row as plain data: numbers for the scalar network, else lists (matrices: a list of rows)."""
        numeric = self.finite_difference
        return {
            "symbol": self.symbol,
            "formula": self.formula,
            "pipeline": self.pipeline.tolist(),
            "by_hand": self.by_hand.tolist(),
            "finite_difference": None if numeric is None else numeric.tolist(),
            "difference_from_formula": self.from_formula,
            "difference_from_finite_difference": self.from_difference,
            "agrees": self.agrees,
        }


def lecture_rows(network: LectureNetwork, pipeline: Values | None = None) -> list[LectureRow]:
    """Return every row of the table: forward values in the order of computation, then derivatives from the last back.

    `pipeline` has the values to check, by symbol; by default those of `pipeline_values`.
    """
    found = pipeline_values(network) if pipeline is None else pipeline
    hand, numeric = by_hand(network), _finite_differences(network)
    return [
        LectureRow(
            symbol=name,
            formula=formula,
            pipeline=found[name],
            by_hand=np.asarray(hand[name]),
            finite_difference=numeric.get(name),
        )
        for name, formula in formulae(network)
    ]


def formulae(network: LectureNetwork) -> Iterator[tuple[str, str]]:
    """Yield (symbol, formula as text) of every row."""
    scalar, weight = network.x.ndim == 0, weight_letter(network)
    times = "·" if scalar else ""
    for k in range(DEPTH):
        if k:
            yield symbol("h", k), f"a[{symbol('f', k - 1)}]"
        yield symbol("f", k), f"{symbol('β', k)} + {symbol(weight, k)}{times}{symbol('h', k) if k else 'x'}"
    yield "ℓ", "(f₃ − y)²" if scalar else "Σ (f₃ − y)²"
    for k in reversed(range(DEPTH)):
        df, h = slope("f", k), symbol("h", k) if k else "x"
        if k == DEPTH - 1:
            yield df, "2(f₃ − y)"
        else:
            da = f"a′[{symbol('f', k)}]·" if scalar else f"I[{symbol('f', k)} > 0] ⊙ "
            yield df, da + slope("h", k + 1)
        yield slope("β", k), df if scalar else f"Σ columns {df}"
        yield slope(weight, k), f"{h}·{df}" if scalar else f"{df} {h}ᵀ"
        if k:
            yield slope("h", k), f"{symbol(weight, k)}·{df}" if scalar else f"{symbol(weight, k)}ᵀ {df}"


def _finite_differences(network: LectureNetwork) -> Values:
    places = [(letter, k) for letter in ("f", "β", weight_letter(network)) for k in range(DEPTH)]
    places += [("h", k) for k in range(1, DEPTH)]
    return {slope(letter, k): finite_difference(network, letter, k) for letter, k in places}


def _apart(found: Array, expected: Array) -> float:
    assert found.shape == expected.shape, f"shapes {found.shape} and {expected.shape} of one value"
    return float(np.max(np.abs(found - expected) / np.maximum(1.0, np.abs(expected))))
