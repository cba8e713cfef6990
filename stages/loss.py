"""Losses, each with its gradient at the network's output.

A micro-batch's gradient is scaled by the *whole batch's* count, so that micro-batches of any size add up to the
batch. Losses are returned as sums in float64; the caller, which knows the count, divides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.arrays import Array
from stages.spec import LossKind

SUMMED: LossKind = "sum_of_squares"
"""The loss that is a sum over the rows, and so grows with their number."""
Targets = NDArray[Any]
"""Labels (rows,) of int64 for cross_entropy; else (outputs, rows) in the model's precision."""


@dataclass(frozen=True, slots=True)
class LossResult:
    """`total`: Σ of the loss over rows (and outputs). `correct`: rows whose largest output is the label, or None.
    `gradient`: ∂ℓ/∂f, shape (outputs, rows)."""

    total: float
    correct: int | None
    gradient: Array


def loss_count(kind: LossKind, rows: int, outputs: int) -> int:
    """Return the number that the summed loss of `rows` rows is divided by: as torch does by default; 1 for the
    lecture's Σ."""
    return {"cross_entropy": rows, "mse": rows * outputs, "sum_of_squares": 1}[kind]


def evaluate_loss(kind: LossKind, f: Array, target: Targets, count: int) -> LossResult:
    """Return loss and gradient of outputs `f` (outputs, rows); the gradient is divided by `count` (see
    `loss_count`)."""
    return _cross_entropy(f, target, count) if kind == "cross_entropy" else _squares(f, target, count)


def _cross_entropy(f: Array, labels: Targets, count: int) -> LossResult:
    """−log softmax(f)[label], from f − max f so that the exponential cannot overflow; ∂ℓ/∂f = softmax(f) − onehot."""
    columns = np.arange(f.shape[1])
    correct = int(np.count_nonzero(f.argmax(axis=0) == labels))
    shifted = f - f.max(axis=0)
    gradient = np.exp(shifted)
    normaliser = gradient.sum(axis=0)
    per_row = np.log(normaliser) - shifted[labels, columns]
    gradient /= normaliser
    gradient[labels, columns] -= 1
    gradient /= count
    return LossResult(float(per_row.sum(dtype=np.float64)), correct, gradient)


def _squares(f: Array, target: Targets, count: int) -> LossResult:
    """Σ (f − y)²; ∂ℓ/∂f = 2 (f − y) / count."""
    difference = f - target
    total = float(np.multiply(difference, difference).sum(dtype=np.float64))
    difference *= 2 / count
    return LossResult(total, None, difference)
