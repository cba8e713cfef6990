"""Flatten: the numbers of a sample as one vector."""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.arrays import Array
from stages.layers.base import ELEMENT, Cost, Layer, LayerKind
from stages.layers.options import NoOptions
from stages.shapes import Shape


class Flatten(Layer):
    """All numbers of a sample in one column, position after position, as torch.nn.Flatten of (positions, features).

    If the sample has no positions, its array is flat already, and nothing is done.
    """

    is_transparent = True
    mixes_positions = True

    def __init__(self, shape: Shape) -> None:
        self.shape_in, self.shape_out = shape, Shape(shape.numbers)
        self.is_identity = not shape.positions

    def cost(self) -> Cost:
        """See Layer."""
        once = 0.0 if self.is_identity else ELEMENT * self.shape_in.numbers
        return Cost(elements=(once, once, 0.0))

    def forward(self, x: Array, y: Array, *_: Any) -> None:
        """y[p · features + f, row] = x[f, row · positions + p]."""
        features, positions = self.shape_in.features, self.shape_in.positions
        np.copyto(y.reshape(positions, features, -1), x.reshape(features, -1, positions).transpose(2, 0, 1))

    def backward_input(self, x: Array, y: Array, extras: Any, dy: Array, dx: Array, *_: Any) -> None:
        """The reverse of `forward`."""
        features, positions = self.shape_in.features, self.shape_in.positions
        np.copyto(dx.reshape(features, -1, positions), dy.reshape(positions, features, -1).transpose(1, 2, 0))


FLATTEN = LayerKind(name="flatten", options=NoOptions, build=lambda options, shape, path: Flatten(shape))
