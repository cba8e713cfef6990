"""Cross-entropy of σ(f) and a target from 0 to 1, for each output by itself."""

from __future__ import annotations

import numpy as np

from stages.arrays import Array, row_blocks
from stages.layers.activations import sigmoid
from stages.layers.options import NoOptions
from stages.losses.base import Loss, LossKind, LossResult, Targets
from stages.losses.cross_entropy import entropy


class BinaryCrossEntropy(Loss):
    """The mean over rows and outputs of −y log σ(f) − (1 − y) log(1 − σ(f)), as torch.nn.BCEWithLogitsLoss. An output
    is right if f > 0 and its target is above 1/2, or if f ≤ 0 and its target is at most 1/2."""

    classifies = True
    targets_between = (0.0, 1.0)

    def count(self, columns: int, outputs: int) -> int:
        """See Loss."""
        return columns * outputs

    def of_constant(self, targets: Targets, outputs: int) -> float | None:
        """See Loss. The mean entropy of the outputs' mean targets."""
        shares = targets.mean(axis=1, dtype=np.float64)
        return float((entropy(shares) + entropy(1 - shares)).mean())

    def evaluate(self, f: Array, targets: Targets, count: int) -> LossResult:
        """See Loss. max(f, 0) − f y + log(1 + e^−|f|) cannot overflow; ∂ℓ/∂f = σ(f) − y."""
        total, correct, gradient = 0.0, 0, np.empty_like(f)
        for rows in row_blocks(f):
            z, y = f[rows], targets[rows]
            losses = np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z)))
            total += float(losses.sum(dtype=np.float64))
            correct += int(np.count_nonzero((z > 0) == (y > 0.5)))
            np.subtract(sigmoid(z), y, out=gradient[rows])
        gradient /= count
        return LossResult(total, correct, gradient)


BINARY_CROSS_ENTROPY = LossKind(name="binary_cross_entropy", options=NoOptions, build=lambda _: BinaryCrossEntropy())
