"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.arrays import Array
from stages.optimizers.base import Optimizer, Part
from stages.spec import SgdSpec


class Sgd(Optimizer):
    """SGD with momentum, Nesterov momentum and weight decay, as torch.optim.SGD (Sutskever et al. 2013).

    g ← scale · g + weight_decay · θ
    u ← momentum · u + g
    θ ← θ − learning_rate · (g + momentum · u if nesterov, else u)
    """

    def __init__(self, spec: SgdSpec, values: Array, gradients: Array, parts: Sequence[Part]) -> None:
        super().__init__(values, gradients, parts, spec.state)
        self._spec = spec

    def _update(self, block: slice, step: int, learning_rate: float, decaying: Sequence[slice]) -> None:
        spec, value, gradient = self._spec, self._values[block], self._gradients[block]
        scratch = self._scratch[0, : len(value)]
        if spec.weight_decay:
            self._add_values(decaying, spec.weight_decay)
        direction = gradient
        if spec.momentum:
            velocity = self.state["momentum"][block]
            np.multiply(velocity, spec.momentum, out=velocity)
            np.add(velocity, gradient, out=velocity)
            direction = velocity
            if spec.nesterov:
                np.multiply(velocity, spec.momentum, out=scratch)
                np.add(gradient, scratch, out=gradient)
                direction = gradient
        np.multiply(direction, learning_rate, out=scratch)
        np.subtract(value, scratch, out=value)
