"""The linear layer f = β + Ωh, its two backward products, and the accumulation that BLAS does itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from stages.arrays import Array, ones
from stages.layers.base import ELEMENT, Call, Cost, Draw, Layer, LayerKind, LayerProblem, ParameterSpec
from stages.layers.options import Init, option
from stages.products import add_product, added_product_call, multiply, product_call
from stages.shapes import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearOptions:
    """f = β + Ωh: `units` outputs; `bias: false` leaves out β; `tied_to` is the entry of model.layers whose weight is
    used; `init` says how Ω is drawn."""

    units: int = option("a whole number of outputs, at least 1", ge=1, le=2**31 - 1)
    bias: bool = option("true or false", default=True)
    tied_to: int | None = option("the number of an entry of model.layers, from 0, or null", default=None, ge=0)
    init: Init | None = option("a section with std", default=None)


class Linear(Layer):
    """f = β + Ωh with Ω `weight` (out, in) and β `bias` (out,), or no bias."""

    weight_gradient_reads = frozenset({"x", "dy"})

    def __init__(self, shape: Shape, options: LinearOptions) -> None:
        n_in, n_out = shape.features, options.units
        self.shape_in, self.shape_out = shape, shape.with_features(n_out)
        self.n_in, self.n_out = n_in, n_out
        draw = Draw(fan_in=n_in, std=None if options.init is None else options.init.std)
        weight = ParameterSpec(name="weight", shape=(n_out, n_in), draw=draw, tied_to=options.tied_to)
        bias = (ParameterSpec(name="bias", shape=(n_out,)),) if options.bias else ()
        self.parameters = (weight, *bias)

    def cost(self) -> Cost:
        """See Layer."""
        product = 2.0 * self.n_in * self.n_out * self.shape_in.columns
        return Cost((product, product, product), (ELEMENT * self.shape_out.numbers, 0.0, 0.0))

    def forward(self, x: Array, y: Array, extras: Any, p: Sequence[Array], *_: Any) -> None:
        """See Layer."""
        multiply(p[0], x, y)
        if len(p) > 1:
            np.add(y, p[1][:, None], y)

    def forward_calls(self, x: Array, y: Array, extras: Any, p: Sequence[Array], *_: Array) -> Sequence[Call]:
        """See Layer."""
        product = product_call(p[0], x, y)
        return (product,) if len(p) == 1 else (product, partial(np.add, y, p[1][:, None], y))

    def input_gradient_calls(
        self, x: Array, y: Array, extras: Any, dy: Array, dx: Array, p: Sequence[Array]
    ) -> Sequence[Call]:
        """See Layer."""
        return (product_call(p[0].T, dy, dx),)

    def weight_gradient_calls(
        self, x: Array, extras: Any, dy: Array, gradients: Sequence[Array], *, accumulate: bool
    ) -> Sequence[Call]:
        """See Layer."""
        product = added_product_call(dy, x.T, gradients[0], accumulate=accumulate)
        if len(gradients) == 1:
            return (product,)
        ones_, bias = ones(dy.shape[1], dy.dtype.char), gradients[1]
        if not accumulate:
            return product, partial(dy.dot, ones_, bias)
        return product, partial(_add_sums, dy, ones_, bias)

    def backward_input(
        self, x: Array, y: Array, extras: Any, dy: Array, dx: Array, p: Sequence[Array], *_: Any
    ) -> None:
        """∂ℓ/∂h = Ωᵀ ∂ℓ/∂f."""
        multiply(p[0].T, dy, dx)

    def backward_weight(
        self, x: Array, extras: Any, dy: Array, gradients: Sequence[Array], *, accumulate: bool
    ) -> None:
        """∂ℓ/∂Ω = ∂ℓ/∂f hᵀ and ∂ℓ/∂β = the sum of ∂ℓ/∂f over columns. The addition happens inside the product."""
        add_product(dy, x.T, gradients[0], accumulate=accumulate)
        if len(gradients) > 1:
            ones_ = ones(dy.shape[1], dy.dtype.char)
            if accumulate:
                np.add(gradients[1], dy.dot(ones_), gradients[1])
            else:
                dy.dot(ones_, gradients[1])


def _add_sums(dy: Array, ones_: Array, total: Array) -> None:
    """Add the sums over columns. The sums' own array is let go: prepared calls would keep one for each micro-batch."""
    np.add(total, dy.dot(ones_), total)


def _build(options: LinearOptions, shape: Shape, path: tuple[int, ...]) -> Layer:
    if len(shape.dims) > 1:
        raise LayerProblem(f"its input has the shape {shape}; put flatten before it")
    return Linear(shape, options)


LINEAR = LayerKind(name="linear", options=LinearOptions, build=_build)
