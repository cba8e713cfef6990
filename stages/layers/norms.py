"""Layer normalisation (Ba, Kiros & Hinton 2016) and its form without a mean (Zhang & Sennrich 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.arrays import Array
from stages.layers.base import ELEMENT, Cost, Extra, Layer, LayerKind, ParameterSpec
from stages.layers.options import option
from stages.shapes import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNormOptions:
    """`epsilon` is added to the variance; `bias: false` leaves out β."""

    epsilon: float = option("a number above 0", default=1e-5, gt=0)
    bias: bool = option("true or false", default=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RmsNormOptions:
    """`epsilon` is added to the mean square."""

    epsilon: float = option("a number above 0", default=1e-5, gt=0)


class _Norm(Layer):
    """Base of norms: each column is normalised over its features. Forward keeps one or two numbers for each column."""

    input_gradient_reads = frozenset({"x"})
    weight_gradient_reads = frozenset({"x", "dy"})
    in_place = True

    def __init__(self, shape: Shape, epsilon: float) -> None:
        self.shape_in = self.shape_out = shape
        self.epsilon = epsilon

    def cost(self) -> Cost:
        """See Layer."""
        once = ELEMENT * self.shape_in.numbers
        return Cost(elements=(2 * once, 2 * once, once))


class LayerNorm(_Norm):
    """y = γ · (x − mean) / √(variance + ε) + β over the features of each column, as torch.nn.LayerNorm."""

    def __init__(self, shape: Shape, options: LayerNormOptions) -> None:
        super().__init__(shape, options.epsilon)
        n = (shape.features,)
        bias = (ParameterSpec(name="bias", shape=n),) if options.bias else ()
        self.parameters = (ParameterSpec(name="weight", shape=n, constant=1.0), *bias)
        self.extras = (Extra(2, until_weight=True),)

    def forward(self, x: Array, y: Array, extras: Sequence[Array], p: Sequence[Array], *_: Any) -> None:
        """See Layer."""
        mean, scale = extras[0]
        _column_means(x, mean)
        np.subtract(x, mean, out=y)
        _column_means_of_products(y, y, scale)
        _inverse_root(scale, self.epsilon)
        np.multiply(y, scale, out=y)
        np.multiply(y, p[0][:, None], out=y)
        if len(p) > 1:
            np.add(y, p[1][:, None], out=y)

    def backward_input(
        self, x: Array, y: Array, extras: Sequence[Array], dy: Array, dx: Array, p: Sequence[Array], *_: Any
    ) -> None:
        """With n = (x − mean) · scale and d = γ · ∂ℓ/∂y: ∂ℓ/∂x = scale · (d − mean of d − n · mean of d·n)."""
        mean, scale = extras[0]
        n = np.subtract(x, mean)
        np.multiply(n, scale, out=n)
        np.multiply(dy, p[0][:, None], out=dx)
        means = np.empty((2, x.shape[1]), dtype=x.dtype)
        _column_means_of_products(dx, n, means[1])
        _column_means(dx, means[0])
        np.multiply(n, means[1], out=n)
        np.subtract(dx, n, out=dx)
        np.subtract(dx, means[0], out=dx)
        np.multiply(dx, scale, out=dx)

    def backward_weight(
        self, x: Array, extras: Sequence[Array], dy: Array, gradients: Sequence[Array], *, accumulate: bool
    ) -> None:
        """∂ℓ/∂γ = Σ ∂ℓ/∂y · n and ∂ℓ/∂β = Σ ∂ℓ/∂y over the columns."""
        mean, scale = extras[0]
        n = np.subtract(x, mean)
        np.multiply(n, scale, out=n)
        _put(gradients[0], np.einsum("fc,fc->f", dy, n), accumulate)
        if len(gradients) > 1:
            _put(gradients[1], dy.sum(axis=1), accumulate)


class RmsNorm(_Norm):
    """y = γ · x / √(mean of x² + ε) over the features of each column, as torch.nn.RMSNorm."""

    def __init__(self, shape: Shape, options: RmsNormOptions) -> None:
        super().__init__(shape, options.epsilon)
        self.parameters = (ParameterSpec(name="weight", shape=(shape.features,), constant=1.0),)
        self.extras = (Extra(1, until_weight=True),)

    def forward(self, x: Array, y: Array, extras: Sequence[Array], p: Sequence[Array], *_: Any) -> None:
        """See Layer."""
        scale = extras[0][0]
        _column_means_of_products(x, x, scale)
        _inverse_root(scale, self.epsilon)
        np.multiply(x, scale, out=y)
        np.multiply(y, p[0][:, None], out=y)

    def backward_input(
        self, x: Array, y: Array, extras: Sequence[Array], dy: Array, dx: Array, p: Sequence[Array], *_: Any
    ) -> None:
        """With n = x · scale and d = γ · ∂ℓ/∂y: ∂ℓ/∂x = scale · (d − n · mean of d·n)."""
        scale = extras[0][0]
        n = np.multiply(x, scale)
        np.multiply(dy, p[0][:, None], out=dx)
        mean = np.empty(x.shape[1], dtype=x.dtype)
        _column_means_of_products(dx, n, mean)
        np.multiply(n, mean, out=n)
        np.subtract(dx, n, out=dx)
        np.multiply(dx, scale, out=dx)

    def backward_weight(
        self, x: Array, extras: Sequence[Array], dy: Array, gradients: Sequence[Array], *, accumulate: bool
    ) -> None:
        """∂ℓ/∂γ = Σ ∂ℓ/∂y · n over the columns."""
        n = np.multiply(x, extras[0][0])
        _put(gradients[0], np.einsum("fc,fc->f", dy, n), accumulate)


def _column_means(a: Array, out: Array) -> None:
    np.add.reduce(a, axis=0, out=out)
    np.divide(out, len(a), out=out)


def _column_means_of_products(a: Array, b: Array, out: Array) -> None:
    np.einsum("fc,fc->c", a, b, out=out)
    np.divide(out, len(a), out=out)


def _inverse_root(variance: Array, epsilon: float) -> None:
    np.add(variance, epsilon, out=variance)
    np.sqrt(variance, out=variance)
    np.divide(1, variance, out=variance)


def _put(gradient: Array, value: Any, accumulate: bool) -> None:
    if accumulate:
        np.add(gradient, value, out=gradient)
    else:
        np.copyto(gradient, value)


LAYER_NORM = LayerKind(
    name="layer_norm", options=LayerNormOptions, build=lambda options, shape, path: LayerNorm(shape, options)
)
RMS_NORM = LayerKind(
    name="rms_norm", options=RmsNormOptions, build=lambda options, shape, path: RmsNorm(shape, options)
)
