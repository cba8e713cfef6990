"""Cross-entropy of σ(f) and a target from 0 to 1, for each output by itself."""

from __future__ import annotations

import numpy as np

from stages.arrays import Array
from stages.layers.activations import sigmoid
from stages.layers.options import NoOptions
from stages.losses.base import Loss, LossKind, LossResult, Targets


class BinaryCrossEntropy(Loss):
    """The mean over rows and outputs of −y log σ(f) − (1 − y) log(1 − σ(f)), as torch.nn.BCEWithLogitsLoss. An output
    is right if f > 0 and its target is above 1/2, or if f ≤ 0 and its target is at most 1/2."""

    classifies = True
    targets_between = (0.0, 1.0)

    def count(self, columns: int, outputs: int) -> int:
        """See Loss."""
        return columns * outputs

    def evaluate(self, f: Array, targets: Targets, count: int) -> LossResult:
        """See Loss. max(f, 0) − f y + log(1 + e^−|f|) cannot overflow; ∂ℓ/∂f = σ(f) − y."""
        losses = np.maximum(f, 0) - f * targets + np.log1p(np.exp(-np.abs(f)))
        correct = int(np.count_nonzero((f > 0) == (targets > 0.5)))
        gradient = sigmoid(f)
        gradient -= targets
        gradient /= count
        return LossResult(float(losses.sum(dtype=np.float64)), correct, gradient)


BINARY_CROSS_ENTROPY = LossKind(name="binary_cross_entropy", options=NoOptions, build=lambda _: BinaryCrossEntropy())
