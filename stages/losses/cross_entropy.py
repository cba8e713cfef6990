"""Cross-entropy of softmax(f) and a label, for classes and for tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.arrays import Array
from stages.layers.options import option
from stages.losses.base import Loss, LossKind, LossResult, Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEntropyOptions:
    """`ignore_index`: a label that does not count. `label_smoothing`: the share ε of the target that is spread evenly
    over all classes (Szegedy et al. 2016)."""

    ignore_index: int | None = option("a whole number or null", default=None, ge=-(2**31), le=2**31 - 1)
    label_smoothing: float = option("a number from 0 to 1", default=0.0, ge=0, le=1)


class CrossEntropy(Loss):
    """−Σ q log softmax(f) with q = 1 − ε for the label plus ε / classes for each; the mean over the labels that count.
    As torch.nn.CrossEntropyLoss."""

    takes_labels = True
    least_outputs = 2
    classifies = True

    def __init__(self, options: CrossEntropyOptions) -> None:
        self.ignore_index, self._smoothing = options.ignore_index, options.label_smoothing

    @property
    def is_log_likelihood(self) -> bool:
        """See Loss. A smoothed loss is no log-likelihood."""
        return self._smoothing == 0

    def count(self, columns: int, outputs: int) -> int:
        """See Loss."""
        return columns

    def of_constant(self, targets: Targets, outputs: int) -> float | None:
        """See Loss. The entropy of the classes' shares, smoothed like the labels."""
        counted = targets if self.ignore_index is None else targets[targets != self.ignore_index]
        counts = np.bincount(counted.astype(np.int64))  # tokens may be of a type that bincount refuses
        if not counts.sum():
            return None
        shares = (1 - self._smoothing) * counts / counts.sum()
        even = self._smoothing / outputs
        unseen = outputs - len(counts)
        return float(entropy(shares + even).sum() + unseen * entropy(np.array(even)))

    def evaluate(self, f: Array, targets: Targets, count: int) -> LossResult:
        """See Loss. From f − max f, so that the exponential cannot overflow; ∂ℓ/∂f = softmax(f) − q."""
        columns, labels, outputs = np.arange(f.shape[1]), targets, len(f)
        ignored = np.flatnonzero(targets == self.ignore_index) if self.ignore_index is not None else None
        right = f.argmax(axis=0) == targets
        if ignored is not None and len(ignored):
            labels = targets.copy()
            labels[ignored] = 0  # any existing class: its results are set to 0
            right[ignored] = False
        gradient = f - f.max(axis=0)
        at_labels, mean = gradient[labels, columns], gradient.mean(axis=0) if self._smoothing else None
        np.exp(gradient, out=gradient)  # in place: with many classes, one more array would raise the peak of memory
        normaliser = gradient.sum(axis=0)
        logarithm = np.log(normaliser)
        per_column = logarithm - at_labels
        gradient /= normaliser
        gradient[labels, columns] -= 1
        if mean is not None:
            even = self._smoothing / outputs
            per_column = (1 - self._smoothing) * per_column + self._smoothing * (logarithm - mean)
            gradient[labels, columns] += self._smoothing
            gradient -= even
        if ignored is not None:
            per_column[ignored] = 0
            gradient[:, ignored] = 0
        gradient /= max(1, count)
        return LossResult(float(per_column.sum(dtype=np.float64)), int(np.count_nonzero(right)), gradient)


def entropy(shares: NDArray[Any]) -> NDArray[Any]:
    """−p log p of each share p; 0 of 0."""
    found: NDArray[Any] = -shares * np.log(np.where(shares > 0, shares, 1))
    return found


CROSS_ENTROPY = LossKind(name="cross_entropy", options=CrossEntropyOptions, build=CrossEntropy)
