"""Layer normalisation (Ba, Kiros & Hinton 2016) and its form without a mean (Zhang & Sennrich 2019).

[Note: norms] The backward pass reads n = (x − mean) · scale twice and never x, so forward keeps n instead of x. All
passes go over blocks of features that stay in the cache; sums over the features are added block after block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.arrays import Array, in_blocks, ones, scalar, set_or_add
from stages.layers.base import Cost, Extra, Layer, LayerKind, ParameterSpec, passes
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
    """Base of norms: each column is normalised over its features. Forward keeps the normalised n instead of x, and the
    scale of each column; see [Note: norms]."""

    weight_gradient_reads = frozenset({"dy"})
    in_place = True
    ignores_scale = True

    def __init__(self, shape: Shape, epsilon: float) -> None:
        self.shape_in = self.shape_out = shape
        self.epsilon = epsilon
        self.extras = (Extra(shape.features, until_weight=True), Extra(1))

    def cost(self) -> Cost:
        """See Layer."""
        return passes(self.shape_in.numbers, 5, 5, 1.5)

    def _finish(self, centred: Array, n: Array, y: Array, scale: Array, p: Sequence[Array]) -> None:
        """n ← centred · scale and y ← γ · n + β."""
        for own, normalised, result, *by_feature in in_blocks(centred, n, y, *(vector[:, None] for vector in p)):
            np.multiply(own, scale, out=normalised)
            np.multiply(normalised, by_feature[0], out=result)
            if len(by_feature) > 1:
                np.add(result, by_feature[1], out=result)

    def backward_weight(
        self, x: Array, extras: Sequence[Array], dy: Array, gradients: Sequence[Array], *, accumulate: bool
    ) -> None:
        """∂ℓ/∂γ = Σ ∂ℓ/∂y · n and ∂ℓ/∂β = Σ ∂ℓ/∂y over the columns."""
        set_or_add(gradients[0], np.einsum("fc,fc->f", dy, extras[0]), accumulate=accumulate)
        if len(gradients) > 1:
            set_or_add(gradients[1], np.matmul(dy, ones(dy.shape[1], dy.dtype.char)), accumulate=accumulate)


class LayerNorm(_Norm):
    """y = γ · (x − mean) / √(variance + ε) + β over the features of each column, as torch.nn.LayerNorm."""

    def __init__(self, shape: Shape, options: LayerNormOptions) -> None:
        super().__init__(shape, options.epsilon)
        n = (shape.features,)
        bias = (ParameterSpec(name="bias", shape=n),) if options.bias else ()
        self.parameters = (ParameterSpec(name="weight", shape=n, constant=1.0), *bias)

    def forward(self, x: Array, y: Array, extras: Sequence[Array], p: Sequence[Array], *_: Any) -> None:
        """See Layer."""
        n, scale = extras[0], extras[1][0]
        mean = np.matmul(ones(len(x), x.dtype.char), x)
        np.divide(mean, scalar(len(x), x.dtype.char), mean)
        for block, (own, centred) in enumerate(in_blocks(x, n)):
            np.subtract(own, mean, out=centred)
            _set_or_add_products(scale, centred, centred, accumulate=block > 0)
        _inverse_root_of_mean(scale, len(x), self.epsilon)
        self._finish(n, n, y, scale, p)

    def backward_input(
        self, x: Array, y: Array, extras: Sequence[Array], dy: Array, dx: Array, p: Sequence[Array], *_: Any
    ) -> None:
        """With d = γ · ∂ℓ/∂y: ∂ℓ/∂x = scale · (d − mean of d − n · mean of d·n)."""
        n, scale = extras[0], extras[1][0]
        mean = np.matmul(p[0], dy)
        np.divide(mean, scalar(len(n), n.dtype.char), mean)
        mean_with_n = _scale_and_mean(p[0], dy, n, dx)
        for below, own in in_blocks(dx, n):
            np.subtract(below, own * mean_with_n, out=below)
            np.subtract(below, mean, out=below)
            np.multiply(below, scale, out=below)


class RmsNorm(_Norm):
    """y = γ · x / √(mean of x² + ε) over the features of each column, as torch.nn.RMSNorm."""

    def __init__(self, shape: Shape, options: RmsNormOptions) -> None:
        super().__init__(shape, options.epsilon)
        self.parameters = (ParameterSpec(name="weight", shape=(shape.features,), constant=1.0),)

    def forward(self, x: Array, y: Array, extras: Sequence[Array], p: Sequence[Array], *_: Any) -> None:
        """See Layer."""
        n, scale = extras[0], extras[1][0]
        np.einsum("fc,fc->c", x, x, out=scale)
        _inverse_root_of_mean(scale, len(x), self.epsilon)
        self._finish(x, n, y, scale, p)

    def backward_input(
        self, x: Array, y: Array, extras: Sequence[Array], dy: Array, dx: Array, p: Sequence[Array], *_: Any
    ) -> None:
        """With d = γ · ∂ℓ/∂y: ∂ℓ/∂x = scale · (d − n · mean of d·n)."""
        n, scale = extras[0], extras[1][0]
        mean_with_n = _scale_and_mean(p[0], dy, n, dx)
        for below, own in in_blocks(dx, n):
            np.subtract(below, own * mean_with_n, out=below)
            np.multiply(below, scale, out=below)


def _scale_and_mean(gamma: Array, dy: Array, n: Array, dx: Array) -> Array:
    """Write γ · ∂ℓ/∂y into dx; return the mean of dx · n over the features, (columns,)."""
    total = np.empty(dy.shape[1], dtype=dy.dtype)
    for block, (above, factor, own, below) in enumerate(in_blocks(dy, gamma[:, None], n, dx)):
        np.multiply(above, factor, out=below)
        _set_or_add_products(total, below, own, accumulate=block > 0)
    return np.divide(total, scalar(len(dx), dx.dtype.char), total)


def _set_or_add_products(total: Array, a: Array, b: Array, *, accumulate: bool) -> None:
    """Set `total` to Σ a · b over the features, or (`accumulate`) add to it."""
    if accumulate:
        np.add(total, np.einsum("fc,fc->c", a, b), out=total)
    else:
        np.einsum("fc,fc->c", a, b, out=total)


def _inverse_root_of_mean(squares: Array, count: int, epsilon: float) -> None:
    dtype = squares.dtype.char
    np.divide(squares, scalar(count, dtype), squares)
    np.add(squares, scalar(epsilon, dtype), squares)
    np.sqrt(squares, squares)
    np.divide(scalar(1.0, dtype), squares, squares)


LAYER_NORM = LayerKind(
    name="layer_norm", options=LayerNormOptions, build=lambda options, shape, path: LayerNorm(shape, options)
)
RMS_NORM = LayerKind(
    name="rms_norm", options=RmsNormOptions, build=lambda options, shape, path: RmsNorm(shape, options)
)
