"""Lion: the sign of a running mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.arrays import Array
from stages.optimizers.base import Optimizer, Part
from stages.spec import LionSpec


class Lion(Optimizer):
    """Lion (Chen et al. 2023, algorithm 2), with decoupled weight decay λ:

    θ ← θ − learning_rate · (sign(β₁ · m + (1 − β₁) · g) + λ · θ)
    m ← β₂ · m + (1 − β₂) · g
    """

    n_scratch = 2

    def __init__(self, spec: LionSpec, values: Array, gradients: Array, parts: Sequence[Part]) -> None:
        super().__init__(values, gradients, parts, spec.state)
        self._spec = spec

    def _update(self, block: slice, step: int, learning_rate: float, decaying: Sequence[slice]) -> None:
        spec, value, gradient = self._spec, self._values[block], self._gradients[block]
        m = self.state["exp_avg"][block]
        scratch, other = self._scratch[0, : len(value)], self._scratch[1, : len(value)]
        beta_1, beta_2 = spec.betas
        np.multiply(m, beta_1, out=scratch)
        np.multiply(gradient, 1 - beta_1, out=other)
        np.add(scratch, other, out=scratch)
        np.sign(scratch, out=scratch)
        np.multiply(scratch, learning_rate, out=scratch)
        if spec.weight_decay:
            self._shrink(decaying, 1 - learning_rate * spec.weight_decay)
        np.subtract(value, scratch, out=value)
        np.multiply(m, beta_2, out=m)
        np.multiply(gradient, 1 - beta_2, out=other)
        np.add(m, other, out=m)
