"""Losses of the difference between an output and its target: its square, its magnitude, and Huber's mix of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stages.arrays import Array, copy_into, row_blocks
from stages.layers.options import NoOptions, option
from stages.losses.base import Loss, LossKind, LossResult, Targets

_FEW = 8192  # numbers that are read from the cache in any order


def _difference(f: Array, targets: Targets) -> Array:
    """f − targets, a new array. The targets are often the transpose of rows, see `copy_into`."""
    if f.size <= _FEW:
        return f - targets
    difference = np.empty_like(f)
    copy_into(difference, targets)
    return np.subtract(f, difference, out=difference)


class SumOfSquares(Loss):
    """Σ (f − y)² over rows and outputs: the lecture's ℓ."""

    is_sum = True

    def count(self, columns: int, outputs: int) -> int:
        """See Loss."""
        return 1

    def of_constant(self, targets: Targets, outputs: int) -> float | None:
        """See Loss. The targets' variance: its sum over the outputs, or its mean."""
        variances = targets.var(axis=1, dtype=np.float64)
        return float(variances.sum() if self.is_sum else variances.mean())

    def evaluate(self, f: Array, targets: Targets, count: int) -> LossResult:
        """See Loss. ∂ℓ/∂f = 2 (f − y) / count."""
        difference = _difference(f, targets)
        total = float(
            np.add.reduce(np.multiply(difference, difference), None, np.float64)
        )  # as `sum`, with fewer calls
        difference *= 2 / count
        return LossResult(total, None, difference)


class _MeanLoss(Loss):
    """Base of losses that are a mean over rows and outputs."""

    def count(self, columns: int, outputs: int) -> int:
        """See Loss."""
        return columns * outputs


class MeanSquare(_MeanLoss, SumOfSquares):
    """The mean of (f − y)², as torch.nn.MSELoss."""

    is_sum = False


class L1(_MeanLoss):
    """The mean of |f − y|, as torch.nn.L1Loss. Its gradient at 0 is 0."""

    def of_constant(self, targets: Targets, outputs: int) -> float | None:
        """See Loss. The mean distance from the outputs' medians."""
        return float(np.abs(targets - np.median(targets, axis=1, keepdims=True)).mean(dtype=np.float64))

    def evaluate(self, f: Array, targets: Targets, count: int) -> LossResult:
        """See Loss."""
        difference = _difference(f, targets)
        total = float(np.abs(difference).sum(dtype=np.float64))
        np.sign(difference, out=difference)
        difference /= count
        return LossResult(total, None, difference)


@dataclass(frozen=True, slots=True, kw_only=True)
class HuberOptions:
    """`delta`: the difference up to which the loss is a square."""

    delta: float = option("a number above 0", default=1.0, gt=0)


class Huber(_MeanLoss):
    """The mean of (f − y)² / 2 if |f − y| ≤ δ, else of δ (|f − y| − δ / 2) (Huber 1964), as torch.nn.HuberLoss."""

    def __init__(self, options: HuberOptions) -> None:
        self._delta = options.delta

    def of_constant(self, targets: Targets, outputs: int) -> float | None:
        """See Loss. The gradient of the best constant is 0, and found by halving the targets' range."""
        low, high = (edge(targets, axis=1, keepdims=True).astype(np.float64) for edge in (np.min, np.max))
        for _ in range(60):
            middle = (low + high) / 2
            too_high = np.clip(middle - targets, -self._delta, self._delta).sum(axis=1, keepdims=True) > 0
            low, high = np.where(too_high, low, middle), np.where(too_high, middle, high)
        cut = np.clip(low - targets, -self._delta, self._delta)
        return float((cut * (low - targets - cut / 2)).mean())

    def evaluate(self, f: Array, targets: Targets, count: int) -> LossResult:
        """See Loss. With c the difference, cut to −δ … δ: the loss is c · (difference − c / 2) and ∂ℓ/∂f = c."""
        total, gradient = 0.0, _difference(f, targets)
        for rows in row_blocks(gradient):
            difference = gradient[rows]
            cut = np.clip(difference, -self._delta, self._delta)
            total += float((cut * (difference - cut / 2)).sum(dtype=np.float64))
            np.divide(cut, count, out=difference)
        return LossResult(total, None, gradient)


MEAN_SQUARE = LossKind(name="mse", options=NoOptions, build=lambda _: MeanSquare())
SUM_OF_SQUARES = LossKind(name="sum_of_squares", options=NoOptions, build=lambda _: SumOfSquares())
L1_LOSS = LossKind(name="l1", options=NoOptions, build=lambda _: L1())
HUBER = LossKind(name="huber", options=HuberOptions, build=Huber)
