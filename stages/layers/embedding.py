"""Embedding: a vector for each token; and learned vectors for the positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.arrays import Array, set_or_add
from stages.layers.base import Cost, Draw, Layer, LayerKind, ParameterSpec, Past, passes, wrong_input
from stages.layers.options import Init, option
from stages.shapes import Shape

DEFAULT_STD = 0.02
"""The standard deviation of vectors for tokens and positions if the job gives no `init` (Radford et al. 2019)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingOptions:
    """`units` numbers for each token of the vocabulary; `init` says how they are drawn."""

    units: int = option("a whole number of features, at least 1", ge=1, le=2**31 - 1)
    init: Init | None = option("a section with std", default=None)


class Embedding(Layer):
    """y[:, column] = weight[token of the column], weight (vocabulary, units), as torch.nn.Embedding.

    x holds the tokens as the bits of integers (see `as_tokens`). Tokens have no gradient.
    """

    weight_gradient_reads = frozenset({"x", "dy"})

    def __init__(self, shape: Shape, options: EmbeddingOptions) -> None:
        self.shape_in, self.shape_out = shape, shape.with_features(options.units)
        self.parameters = (
            ParameterSpec(name="weight", shape=(shape.vocabulary, options.units), draw=_draw(options.init)),
        )

    def cost(self) -> Cost:
        """See Layer."""
        return passes(self.shape_out.numbers, 3, 0, 10)

    def forward(self, x: Array, y: Array, extras: Any, p: Sequence[Array], *_: Any) -> None:
        """See Layer."""
        np.copyto(y, p[0][_tokens(x)].T)

    def backward_weight(
        self, x: Array, extras: Any, dy: Array, gradients: Sequence[Array], *, accumulate: bool
    ) -> None:
        """Row of ∂ℓ/∂weight for a token: the sum of ∂ℓ/∂y over the columns with that token, in the order of the
        columns."""
        gradient, tokens = gradients[0], _tokens(x)
        if not accumulate:
            gradient[:] = 0
        order = np.argsort(tokens, kind="stable")
        ordered = tokens[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        gradient[ordered[starts]] += np.add.reduceat(dy.T[order], starts, axis=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionsOptions:
    """`init` says how the vectors are drawn."""

    init: Init | None = option("a section with std", default=None)


class Positions(Layer):
    """y = x + a learned vector for the column's position, weight (positions, features)."""

    in_place = True
    passes_gradient = True
    weight_gradient_reads = frozenset({"dy"})

    def __init__(self, shape: Shape, options: PositionsOptions) -> None:
        self.shape_in = self.shape_out = shape
        self.parameters = (
            ParameterSpec(name="weight", shape=(shape.positions, shape.features), draw=_draw(options.init)),
        )

    def cost(self) -> Cost:
        """See Layer."""
        return passes(self.shape_out.numbers, 2, 0, 3)

    def forward(self, x: Array, y: Array, extras: Any, p: Sequence[Array], *_: Any) -> None:
        """See Layer."""
        np.add(self._by_row(x), p[0].T[:, None, :], out=self._by_row(y))

    def backward_weight(
        self, x: Array, extras: Any, dy: Array, gradients: Sequence[Array], *, accumulate: bool
    ) -> None:
        """∂ℓ/∂weight: the sum of ∂ℓ/∂y over the rows."""
        total = self._by_row(dy).sum(axis=1).T
        set_or_add(gradients[0], total, accumulate=accumulate)

    def continue_forward(self, x: Array, y: Array, p: Sequence[Array], past: Past, *others: Array) -> None:
        """See Layer."""
        np.add(x, p[0][past.length : past.length + x.shape[1]].T, out=y)

    def _by_row(self, a: Array) -> Array:
        return a.reshape(len(a), -1, self.shape_in.positions)


def as_tokens(array: Array) -> Any:
    """Return the tokens of a stage's array: a view that reads its bits as integers of the same size, not as real
    numbers."""
    return array.view(f"i{array.dtype.itemsize}")


def _tokens(x: Array) -> Any:
    return as_tokens(x)[0]


def _draw(init: Init | None) -> Draw:
    return Draw(fan_in=1, std=None if init is None else init.std, default_std=DEFAULT_STD)


def _embedding(options: EmbeddingOptions, shape: Shape, path: tuple[int, ...]) -> Layer:
    if not shape.vocabulary:
        raise wrong_input("be tokens", shape, "only the first layer of a text model takes them")
    return Embedding(shape, options)


def _positions(options: PositionsOptions, shape: Shape, path: tuple[int, ...]) -> Layer:
    if not shape.positions:
        raise wrong_input("be vectors at positions", shape, "put embedding before it")
    return Positions(shape, options)


EMBEDDING = LayerKind(name="embedding", options=EmbeddingOptions, build=_embedding, takes_tokens=True)
POSITIONS = LayerKind(name="positions", options=PositionsOptions, build=_positions)
