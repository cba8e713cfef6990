"""A training run in rational numbers: no rounding, no stages, no BLAS, and no order of a sum matters."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from stages.arrays import Array


def rational(array: Array) -> Any:
    """Return the numbers as an array of fractions."""
    return np.array([Fraction(float(value)) for value in array.flat], dtype=object).reshape(array.shape)


class RationalNetwork:
    """Linear layers with ReLU between them, for Σ (f − y)². Samples are columns; `values` is [Ω₀, β₀, Ω₁, β₁, …]."""

    def __init__(self, values: Sequence[Array]) -> None:
        self.values = [rational(value) for value in values]
        self._velocities = [value * 0 for value in self.values]

    def step(self, x: Array, y: Array, rate: Fraction, momentum: Fraction, decay: Fraction, nesterov: bool) -> Fraction:
        """Make one update with all columns of `x` at once. Return the loss before it."""
        loss, gradients = self.gradients(x, y)
        for i, (value, gradient) in enumerate(zip(self.values, gradients, strict=True)):
            gradient = gradient + decay * value
            self._velocities[i] = momentum * self._velocities[i] + gradient
            used = gradient + momentum * self._velocities[i] if nesterov else self._velocities[i]
            self.values[i] = value - rate * used
        return loss

    def gradients(self, x: Array, y: Array) -> tuple[Fraction, list[Any]]:
        """Return the loss, and ∂ℓ/∂Ω₀, ∂ℓ/∂β₀, ∂ℓ/∂Ω₁, …"""
        inputs, f = [rational(x)], rational(x) * 0
        weights, biases = self.values[::2], self.values[1::2]
        for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            f = weight.dot(inputs[-1]) + bias[:, None]
            if k + 1 < len(weights):
                inputs.append(np.where(f > 0, f, f * 0))
        difference = f - rational(y)
        d, found = 2 * difference, list[Any]()
        for weight, h in zip(reversed(weights), reversed(inputs), strict=True):
            found[:0] = [d.dot(h.T), d.sum(axis=1)]
            d = np.where(h > 0, weight.T.dot(d), weight.T.dot(d) * 0)
        return Fraction((difference * difference).sum()), found


def layer_sizes(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Shapes of Ω₀, β₀, Ω₁, …"""
    return [shape for n_in, n_out in pairwise(sizes) for shape in ((n_out, n_in), (n_out,))]
