"""How good outputs are, counted chunk by chunk: rows by class for classifiers, differences for numbers.

    found = quality(loss, f, targets)              # of a chunk
    found = found + quality(loss, more, targets)   # of both

The order of the chunks decides the last bits of sums, so it must not depend on timing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.arrays import Array
from stages.losses import Loss, Targets

MOST_CONFUSED = 256
"""The most classes that have a confusion matrix."""
MOST_JUDGED = 4096
"""The most outputs for which workers count: for more, the report would become a large message."""

Counts = NDArray[np.int64]
Sums = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ClassCounts:
    """Rows by class: `true` of the class, `predicted` as it, and `right`, which are both. Each is (classes,).

    `confusion[i, j]` counts rows of class i that were predicted as class j; None if a row may have several classes
    (`binary_cross_entropy` with several outputs), or if there are more than MOST_CONFUSED.
    """

    true: Counts
    predicted: Counts
    right: Counts
    confusion: Counts | None = None

    def __add__(self, other: ClassCounts) -> ClassCounts:
        """Return the counts of both parts."""
        both = None if self.confusion is None or other.confusion is None else self.confusion + other.confusion
        return ClassCounts(
            true=self.true + other.true,
            predicted=self.predicted + other.predicted,
            right=self.right + other.right,
            confusion=both,
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class NumberSums:
    """Sums over rows, each (outputs,) float64: the `mean` of the targets, Σ (y − mean)² as `spread`, Σ |f − y| as
    `absolute` and Σ (f − y)² as `squared`."""

    rows: int
    mean: Sums
    spread: Sums
    absolute: Sums
    squared: Sums

    def __add__(self, other: NumberSums) -> NumberSums:
        """Return the sums of both parts (Chan, Golub and LeVeque 1979)."""
        rows, apart = self.rows + other.rows, other.mean - self.mean
        return NumberSums(
            rows=rows,
            mean=self.mean + apart * (other.rows / rows),
            spread=self.spread + other.spread + apart * apart * (self.rows * other.rows / rows),
            absolute=self.absolute + other.absolute,
            squared=self.squared + other.squared,
        )


Quality = ClassCounts | NumberSums


def quality(loss: Loss, f: Array, targets: Targets) -> Quality:
    """Return the counts or sums of outputs `f` (outputs, columns) and their targets, which stay as they are."""
    if loss.takes_labels:
        counted = np.ones(len(targets), bool) if loss.ignore_index is None else targets != loss.ignore_index
        return _classes(targets[counted], f.argmax(axis=0)[counted], len(f))
    if not loss.classifies:
        return _numbers(f, targets)
    true, predicted = targets > 0.5, f > 0
    if len(f) == 1:
        return _classes(true[0].astype(np.int64), predicted[0].astype(np.int64), 2)
    return ClassCounts(
        true=true.sum(axis=1), predicted=predicted.sum(axis=1), right=np.logical_and(true, predicted).sum(axis=1)
    )


def added(before: Quality | None, more: Quality) -> Quality:
    """Return the sum of both, which are of one kind; `before` is None at the beginning."""
    if isinstance(before, ClassCounts) and isinstance(more, ClassCounts):
        return before + more
    if isinstance(before, NumberSums) and isinstance(more, NumberSums):
        return before + more
    assert before is None, "a loss has one kind of figures"
    return more


def _classes(true: NDArray[Any], predicted: NDArray[Any], classes: int) -> ClassCounts:
    confusion = None
    if classes <= MOST_CONFUSED:
        confusion = np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)
    return ClassCounts(
        true=np.bincount(true, minlength=classes),
        predicted=np.bincount(predicted, minlength=classes),
        right=np.bincount(true[true == predicted], minlength=classes),
        confusion=confusion,
    )


def _numbers(f: Array, targets: Targets) -> NumberSums:
    outputs, rows = f.shape
    mean, spread, absolute, squared = (np.zeros(outputs) for _ in range(4))
    for k in range(outputs):  # one by one: float64 copies of all outputs would raise the peak of memory
        y = targets[k].astype(np.float64)
        difference = f[k] - y
        mean[k] = y.mean()
        y -= mean[k]
        spread[k], absolute[k], squared[k] = y @ y, np.abs(difference).sum(), difference @ difference
    return NumberSums(rows=rows, mean=mean, spread=spread, absolute=absolute, squared=squared)
