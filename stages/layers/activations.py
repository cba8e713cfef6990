"""Activations a[·] and their derivatives, element by element, in blocks, so that intermediate results are small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from stages.arrays import CACHE_NUMBERS, Array, in_blocks, zeros
from stages.layers.base import Call, Cost, Layer, LayerKind, passes
from stages.layers.options import NoOptions, option
from stages.shapes import Shape

_ZERO: dict[str, Array] = {char: np.zeros((), char) for char in "fd"}
"""By a dtype's `char`. A ufunc takes longer to make an array of the number 0."""


class Activation(Layer):
    """Base of activations: the output has the input's shape, and may be written over it."""

    in_place = True
    input_gradient_reads = frozenset({"y"})
    pass_counts: ClassVar[tuple[float, float]] = (1.0, 1.0)
    """Passes over the elements that take as long as F and as I."""

    def __init__(self, shape: Shape) -> None:
        self.shape_in = self.shape_out = shape

    def cost(self) -> Cost:
        """See Layer."""
        return passes(self.shape_in.numbers, *self.pass_counts)


class Relu(Activation):
    """a[z] = max(z, 0). The derivative at 0 is 0, as in torch."""

    weight_gain = 2.0
    can_die = True

    def living_units(self, y: Array) -> NDArray[np.bool_]:
        """See Layer."""
        return _above(y.max(axis=1), 0)

    def forward(self, x: Array, y: Array, *_: Any) -> None:
        """See Layer."""
        if x.size <= CACHE_NUMBERS:  # as `in_blocks`, without a call
            np.maximum(x, zeros(*x.shape, x.dtype.char), out=y)
            return
        for own, out in in_blocks(x, y):
            np.maximum(own, zeros(*own.shape, own.dtype.char), out=out)

    def forward_calls(self, x: Array, y: Array, extras: Any, p: Any, *_: Array) -> Sequence[Call]:
        """See Layer."""
        if x.size > CACHE_NUMBERS:
            return super().forward_calls(x, y, extras, p)
        return (partial(np.maximum, x, zeros(*x.shape, x.dtype.char), out=y),)

    def backward_input(self, x: Array, y: Array, extras: Any, dy: Array, dx: Array, *_: Any) -> None:
        """∂ℓ/∂x = ∂ℓ/∂y where y > 0, else 0."""
        zero = _ZERO[y.dtype.char]
        if y.size <= CACHE_NUMBERS:
            np.multiply(dy, np.greater(y, zero), dx)
            return
        for above, own, below in in_blocks(dy, y, dx):
            np.multiply(above, np.greater(own, zero), below)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakyReluOptions:
    """`slope` is the factor of values below zero."""

    slope: float = option("a number from 0 to below 1", default=0.01, ge=0, lt=1)


class LeakyRelu(Activation):
    """a[z] = z where z > 0, else slope · z, with 0 ≤ slope < 1."""

    weight_gain = 2.0
    pass_counts = (1.0, 4.0)

    def __init__(self, shape: Shape, slope: float) -> None:
        super().__init__(shape)
        self.slope = float(slope)
        self.can_die = self.slope == 0

    def living_units(self, y: Array) -> NDArray[np.bool_]:
        """See Layer."""
        return _above(y.max(axis=1), 0)

    def forward(self, x: Array, y: Array, *_: Any) -> None:
        """See Layer."""
        for own, out in in_blocks(x, y):
            np.maximum(own, own * self.slope, out=out)

    def backward_input(self, x: Array, y: Array, extras: Any, dy: Array, dx: Array, *_: Any) -> None:
        """∂ℓ/∂x = ∂ℓ/∂y · (1 where y > 0, else slope): the sign of y is the sign of x."""
        for above, own, below in in_blocks(dy, y, dx):
            derivative = np.where(own > 0, dy.dtype.type(1), dy.dtype.type(self.slope))
            np.multiply(above, derivative, out=below)


class Tanh(Activation):
    """a[z] = tanh z. A unit dies if all its outputs are ±1 in floating point."""

    pass_counts = (5.0, 1.0)
    can_die = True

    def living_units(self, y: Array) -> NDArray[np.bool_]:
        """See Layer."""
        return _above(1, np.abs(y).min(axis=1))

    def forward(self, x: Array, y: Array, *_: Any) -> None:
        """See Layer."""
        np.tanh(x, out=y)

    def backward_input(self, x: Array, y: Array, extras: Any, dy: Array, dx: Array, *_: Any) -> None:
        """∂ℓ/∂x = ∂ℓ/∂y · (1 − y²)."""
        for above, own, below in in_blocks(dy, y, dx):
            derivative = np.multiply(own, own)
            np.subtract(1, derivative, out=derivative)
            np.multiply(above, derivative, out=below)


class Sigmoid(Activation):
    """a[z] = 1 / (1 + e^−z), computed from e^−|z| so that nothing overflows. A unit dies if all its outputs are 0 or 1
    in floating point."""

    pass_counts = (10.0, 1.0)
    can_die = True

    def living_units(self, y: Array) -> NDArray[np.bool_]:
        """See Layer."""
        return _above((y * (1 - y)).max(axis=1), 0)

    def forward(self, x: Array, y: Array, *_: Any) -> None:
        """See Layer."""
        for own, out in in_blocks(x, y):
            np.copyto(out, sigmoid(own))

    def backward_input(self, x: Array, y: Array, extras: Any, dy: Array, dx: Array, *_: Any) -> None:
        """∂ℓ/∂x = ∂ℓ/∂y · y · (1 − y)."""
        for above, own, below in in_blocks(dy, y, dx):
            derivative = np.subtract(1, own)
            np.multiply(derivative, own, out=derivative)
            np.multiply(above, derivative, out=below)


class Silu(Activation):
    """a[z] = z / (1 + e^−z) (Hendrycks & Gimpel 2016; as torch.nn.SiLU)."""

    weight_gain = 2.0
    pass_counts = (10.0, 10.0)
    input_gradient_reads = frozenset({"x"})

    def forward(self, x: Array, y: Array, *_: Any) -> None:
        """See Layer."""
        for own, out in in_blocks(x, y):
            np.multiply(own, sigmoid(own), out=out)

    def backward_input(self, x: Array, y: Array, extras: Any, dy: Array, dx: Array, *_: Any) -> None:
        """∂ℓ/∂x = ∂ℓ/∂y · σ · (1 + x · (1 − σ))."""
        for above, own, below in in_blocks(dy, x, dx):
            np.multiply(above, silu_derivative(own, sigmoid(own)), out=below)


class Softplus(Activation):
    """a[z] = log(1 + e^z), computed so that nothing overflows."""

    weight_gain = 2.0
    pass_counts = (45.0, 10.0)
    input_gradient_reads = frozenset({"x"})

    def forward(self, x: Array, y: Array, *_: Any) -> None:
        """See Layer."""
        np.logaddexp(x, 0, out=y)

    def backward_input(self, x: Array, y: Array, extras: Any, dy: Array, dx: Array, *_: Any) -> None:
        """∂ℓ/∂x = ∂ℓ/∂y · σ(x)."""
        for above, own, below in in_blocks(dy, x, dx):
            np.multiply(above, sigmoid(own), out=below)


def _above(a: Any, b: Any) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.greater(a, b)
    return found


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^−x), a new array of x's dtype."""
    small = np.exp(-np.abs(x))
    result: Array = np.where(x >= 0, x.dtype.type(1), small)
    np.add(small, 1, out=small)
    np.divide(result, small, out=result)
    return result


def silu_derivative(x: Array, s: Array) -> Array:
    """σ · (1 + x · (1 − σ)) from x and s = σ(x), a new array."""
    derivative: Array = np.subtract(1, s)
    np.multiply(derivative, x, out=derivative)
    np.add(derivative, 1, out=derivative)
    np.multiply(derivative, s, out=derivative)
    return derivative


def _plain(name: str, make: Callable[[Shape], Layer]) -> LayerKind:
    return LayerKind(name=name, options=NoOptions, build=lambda options, shape, path: make(shape))


RELU = _plain("relu", Relu)
LEAKY_RELU = LayerKind(
    name="leaky_relu", options=LeakyReluOptions, build=lambda options, shape, path: LeakyRelu(shape, options.slope)
)
TANH = _plain("tanh", Tanh)
SIGMOID = _plain("sigmoid", Sigmoid)
SILU = _plain("silu", Silu)
SOFTPLUS = _plain("softplus", Softplus)
