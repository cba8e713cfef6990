"""Adam and AdamW."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from stages.arrays import Array
from stages.optimizers.base import Optimizer, Part
from stages.spec import AdamSpec


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1), and with `decoupled` decay AdamW (Loshchilov & Hutter 2019), as in torch.
    For update t, from 1:

    g ← scale · g + weight_decay · θ                       (Adam)
    θ ← θ − learning_rate · weight_decay · θ               (AdamW)
    m ← m + (1 − β₁) · (g − m),   v ← β₂ · v + (1 − β₂) · g²
    θ ← θ − learning_rate / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
    """

    n_scratch = 2

    def __init__(self, spec: AdamSpec, values: Array, gradients: Array, parts: Sequence[Part]) -> None:
        super().__init__(values, gradients, parts, spec.state)
        self._spec = spec

    def _update(self, block: slice, step: int, learning_rate: float, decaying: Sequence[slice]) -> None:
        spec, value, gradient = self._spec, self._values[block], self._gradients[block]
        m, v = self.state["exp_avg"][block], self.state["exp_avg_sq"][block]
        scratch, other = self._scratch[0, : len(value)], self._scratch[1, : len(value)]
        if spec.weight_decay and spec.decoupled:
            self._shrink(decaying, 1 - learning_rate * spec.weight_decay)
        elif spec.weight_decay:
            self._add_values(decaying, spec.weight_decay)
        beta_1, beta_2 = spec.betas
        np.subtract(gradient, m, out=scratch)
        np.multiply(scratch, 1 - beta_1, out=scratch)
        np.add(m, scratch, out=m)
        np.multiply(v, beta_2, out=v)
        np.multiply(gradient, gradient, out=scratch)
        np.multiply(scratch, 1 - beta_2, out=scratch)
        np.add(v, scratch, out=v)
        np.sqrt(v, out=scratch)
        np.multiply(scratch, 1 / math.sqrt(1 - beta_2**step), out=scratch)
        np.add(scratch, spec.epsilon, out=scratch)
        np.divide(m, scratch, out=other)
        np.multiply(other, learning_rate / (1 - beta_1**step), out=other)
        np.subtract(value, other, out=value)
