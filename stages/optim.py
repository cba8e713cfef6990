"""Stochastic gradient descent, in place and in blocks that stay in the cache."""

from __future__ import annotations

import numpy as np

from stages.arrays import Array, aligned_empty
from stages.spec import SgdSpec

_BLOCK = 32_768  # elements: three blocks of float32 fit the second-level cache


class Sgd:
    """SGD with momentum, Nesterov momentum and weight decay, as torch.optim.SGD (Sutskever et al. 2013).

    g ← scale · g + weight_decay · θ
    u ← momentum · u + g
    θ ← θ − learning_rate · (g + momentum · u if nesterov, else u)
    """

    def __init__(self, spec: SgdSpec, values: Array, gradients: Array) -> None:
        self._spec = spec
        self._values, self._gradients = values, gradients
        self.momentum: Array | None = None
        if spec.momentum:
            self.momentum = aligned_empty(values.shape, values.dtype)
            self.momentum[:] = 0
        self._scratch = aligned_empty((min(_BLOCK, len(values)),), values.dtype)

    def update(self, learning_rate: float, scale: float = 1.0) -> None:
        """Apply one step. `scale` multiplies the gradients (clipping). The gradients are used up."""
        for start in range(0, len(self._values), _BLOCK):
            self._update_block(slice(start, start + _BLOCK), float(learning_rate), float(scale))

    def _update_block(self, part: slice, learning_rate: float, scale: float) -> None:
        spec, value, gradient = self._spec, self._values[part], self._gradients[part]
        scratch = self._scratch[: len(value)]
        if scale != 1.0:
            np.multiply(gradient, scale, out=gradient)
        if spec.weight_decay:
            np.multiply(value, spec.weight_decay, out=scratch)
            np.add(gradient, scratch, out=gradient)
        direction = gradient
        if self.momentum is not None:
            velocity = self.momentum[part]
            np.multiply(velocity, spec.momentum, out=velocity)
            np.add(velocity, gradient, out=velocity)
            direction = velocity
            if spec.nesterov:
                np.multiply(velocity, spec.momentum, out=scratch)
                np.add(gradient, scratch, out=gradient)
                direction = gradient
        np.multiply(direction, learning_rate, out=scratch)
        np.subtract(value, scratch, out=value)
