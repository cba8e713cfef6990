"""Dropout (Srivastava et al. 2014). Its masks do not depend on stages, micro-batches or schedule.

[Note: dropout masks] The mask of a row follows from (seed, step, layer, row) alone: the counter-based generator Philox
(Salmon et al. 2011) with the key `SeedSequence([seed, 2, *path]).generate_state(2, uint64)` and the counter
(0, row, step, 0), where `row` is the row's place in its step and `step` counts from 1. Each of its 64-bit words gives
four 16-bit numbers, lowest first. The elements of the row, feature after feature and position after position, take one
each; an element is dropped if its 16-bit number is below round(rate · 65536).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.arrays import Array
from stages.layers.base import Cost, Layer, LayerKind, Moment, passes
from stages.layers.options import option
from stages.shapes import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class DropoutOptions:
    """`rate` is the share of numbers that training sets to 0; the others are multiplied by 1 / (1 − rate)."""

    rate: float = option("a number from 0 to below 1", default=0.1, ge=0, lt=1)


class Dropout(Layer):
    """See [Note: dropout masks]. Evaluation changes nothing."""

    in_place = True
    is_transparent = True
    draws = True

    def __init__(self, shape: Shape, rate: float, path: tuple[int, ...]) -> None:
        self.shape_in = self.shape_out = shape
        self.rate, self.path, self.below = rate, path, round(rate * 65536)
        self.scale = 65536 / (65536 - self.below) if self.below < 65536 else 0.0
        self.is_identity = self.below == 0

    def cost(self) -> Cost:
        """See Layer."""
        return passes(0 if self.is_identity else self.shape_in.numbers, 5, 5)

    def forward(self, x: Array, y: Array, extras: Any, p: Any, at: Moment, *_: Any) -> None:
        """See Layer."""
        if at.training:
            self._drop(x, y, at)
        elif y is not x:
            np.copyto(y, x)

    def backward_input(self, x: Array, y: Array, extras: Any, dy: Array, dx: Array, p: Any, at: Moment) -> None:
        """∂ℓ/∂x = ∂ℓ/∂y · the factors of forward, which are drawn again."""
        self._drop(dy, dx, at)

    def _drop(self, a: Array, out: Array, at: Moment) -> None:
        """Multiply by the factors, 0 for dropped elements, else the scale. One row at a time: its factors are small."""
        shape = self.shape_in
        key = np.random.SeedSequence([at.seed, 2, *self.path]).generate_state(2, np.uint64)
        by_row = shape.features, a.shape[1] // shape.columns, shape.columns
        source, result = a.reshape(by_row), out.reshape(by_row)
        words, scale = -(-shape.numbers // 4), a.dtype.type(self.scale)
        for i in range(by_row[1]):
            stream = np.random.Philox(counter=[0, at.first + i, at.step, 0], key=key)
            numbers = stream.random_raw(words).astype("<u8", copy=False).view("<u2")[: shape.numbers]
            factors = (numbers >= self.below).reshape(shape.features, shape.columns) * scale
            np.multiply(source[:, i, :], factors, out=result[:, i, :])


DROPOUT = LayerKind(
    name="dropout", options=DropoutOptions, build=lambda options, shape, path: Dropout(shape, options.rate, path)
)
