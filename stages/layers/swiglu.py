"""SwiGLU (Shazeer 2020): one half of the features gates the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.arrays import Array, row_blocks
from stages.layers.activations import sigmoid, silu_derivative
from stages.layers.base import Cost, Layer, LayerKind, passes, wrong_input
from stages.layers.options import NoOptions
from stages.shapes import Shape


class Swiglu(Layer):
    """y = a · σ(a) · b, where a is the first half of x's features and b the second."""

    weight_gain = 2.0
    input_gradient_reads = frozenset({"x"})

    def __init__(self, shape: Shape) -> None:
        self.shape_in, self.shape_out = shape, shape.with_features(shape.features // 2)

    def cost(self) -> Cost:
        """See Layer."""
        return passes(self.shape_in.numbers, 6, 7)

    def forward(self, x: Array, y: Array, *_: Any) -> None:
        """See Layer."""
        a, b = x[: len(y)], x[len(y) :]
        for rows in row_blocks(y):
            np.multiply(a[rows], sigmoid(a[rows]), out=y[rows])
            np.multiply(y[rows], b[rows], out=y[rows])

    def backward_input(self, x: Array, y: Array, extras: Any, dy: Array, dx: Array, *_: Any) -> None:
        """∂ℓ/∂b = ∂ℓ/∂y · a · σ(a) and ∂ℓ/∂a = ∂ℓ/∂y · b · the derivative of a · σ(a)."""
        n = len(dy)
        a, b, da, db = x[:n], x[n:], dx[:n], dx[n:]
        for rows in row_blocks(dy):
            s = sigmoid(a[rows])
            np.multiply(a[rows], s, out=db[rows])
            np.multiply(db[rows], dy[rows], out=db[rows])
            np.multiply(silu_derivative(a[rows], s), b[rows], out=da[rows])
            np.multiply(da[rows], dy[rows], out=da[rows])


def _build(options: NoOptions, shape: Shape, path: tuple[int, ...]) -> Layer:
    if shape.features % 2 or len(shape.dims) > 1:
        raise wrong_input("have an even number of features", shape)
    return Swiglu(shape)


SWIGLU = LayerKind(name="swiglu", options=NoOptions, build=_build)
