"""Activations a[·] and their derivatives, element by element."""

from __future__ import annotations

import numpy as np

from stages.arrays import Array
from stages.layers.base import Layer


class Activation(Layer):
    """Common part: same number of features in and out, and may run in place."""

    elementwise = True

    def __init__(self, index: int, features: int) -> None:
        self.index = index
        self.n_in = self.n_out = features


class Relu(Activation):
    """a[z] = max(z, 0). The derivative at 0 is 0, as in torch."""

    def forward(self, x: Array, out: Array) -> None:
        """See Layer.forward."""
        np.maximum(x, 0, out=out)

    def backward_input(self, x: Array, y: Array, dy: Array, out: Array) -> None:
        """∂ℓ/∂x = ∂ℓ/∂y where y > 0, else 0."""
        np.multiply(dy, y > 0, out=out)


class LeakyRelu(Activation):
    """a[z] = z where z > 0, else slope · z, with 0 ≤ slope < 1."""

    def __init__(self, index: int, features: int, slope: float) -> None:
        super().__init__(index, features)
        self.slope = float(slope)

    def forward(self, x: Array, out: Array) -> None:
        """See Layer.forward."""
        np.maximum(x, x * self.slope, out=out)

    def backward_input(self, x: Array, y: Array, dy: Array, out: Array) -> None:
        """∂ℓ/∂x = ∂ℓ/∂y · (1 where y > 0, else slope): the sign of y is the sign of x."""
        derivative = np.where(y > 0, dy.dtype.type(1), dy.dtype.type(self.slope))
        np.multiply(dy, derivative, out=out)


class Tanh(Activation):
    """a[z] = tanh z."""

    def forward(self, x: Array, out: Array) -> None:
        """See Layer.forward."""
        np.tanh(x, out=out)

    def backward_input(self, x: Array, y: Array, dy: Array, out: Array) -> None:
        """∂ℓ/∂x = ∂ℓ/∂y · (1 − y²)."""
        derivative = np.multiply(y, y)
        np.subtract(1, derivative, out=derivative)
        np.multiply(dy, derivative, out=out)


class Sigmoid(Activation):
    """a[z] = 1 / (1 + e^−z), computed from e^−|z| so that nothing overflows."""

    def forward(self, x: Array, out: Array) -> None:
        """See Layer.forward."""
        small = np.exp(-np.abs(x))
        np.divide(np.where(x >= 0, x.dtype.type(1), small), 1 + small, out=out)

    def backward_input(self, x: Array, y: Array, dy: Array, out: Array) -> None:
        """∂ℓ/∂x = ∂ℓ/∂y · y · (1 − y)."""
        derivative = np.subtract(1, y)
        np.multiply(derivative, y, out=derivative)
        np.multiply(dy, derivative, out=out)
