"""Attention (Vaswani et al. 2017, eq. 1): heads of queries, keys and values, and its short form with projections.

[Note: heads] The input holds the features of all queries, then of all keys, then of all values, head after head. For a
product, each head of each row is a matrix (features of a head, positions). With scores of shape (keys, queries) no
array need be transposed: values · probabilities already has the layout of the layer's output. Several heads of queries
may share a head of keys and values (Ainslie et al. 2023): head h of the queries uses head h // (heads / kv_heads).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from stages.arrays import Array
from stages.layers.attention_past import attend_to_past
from stages.layers.base import ELEMENT, Cost, Extra, Layer, LayerKind, LayerProblem, Past
from stages.layers.linear import LinearOptions
from stages.layers.options import option
from stages.layers.sequential import LayerSpec
from stages.shapes import Shape

ROTARY_BASE = 10_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DotProductOptions:
    """`heads` of queries and `kv_heads` of keys and values; `causal`: a position attends only to itself and to earlier
    positions; `rotary`: queries and keys are rotated by angles that depend on their position (Su et al. 2021)."""

    heads: int = option("a whole number, at least 1", ge=1, le=2**20)
    kv_heads: int | None = option(
        "a whole number, at least 1, or null for the same number as heads", default=None, ge=1
    )
    causal: bool = option("true or false", default=True)
    rotary: bool = option("true or false", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionOptions(DotProductOptions):
    """The options of attention with its projections; `bias: false` leaves out their biases."""

    bias: bool = option("true or false", default=True)


class DotProductAttention(Layer):
    """softmax(kᵀq / √(features of a head)) over the keys, then values · probabilities; see [Note: heads]."""

    input_gradient_reads = frozenset({"x"})
    mixes_positions = True

    def __init__(self, shape: Shape, options: DotProductOptions) -> None:
        kv_heads = options.kv_heads or options.heads
        self.heads, self.kv_heads = options.heads, kv_heads
        self.causal, self.rotary = options.causal, options.rotary
        self.width = shape.features // (options.heads + 2 * kv_heads)
        self.positions = shape.positions
        self.shape_in, self.shape_out = shape, shape.with_features(self.width * options.heads)
        self.extras = (Extra(options.heads * shape.positions),)

    def cost(self) -> Cost:
        """See Layer. The probabilities of a causal layer above the diagonal are computed and thrown away."""
        product = 2.0 * self.heads * self.positions**2 * self.width
        scores = ELEMENT * self.heads * self.positions**2
        copies = ELEMENT * self.shape_in.numbers
        return Cost((2 * product, 4 * product, 0.0), (2 * scores + copies, 2 * scores + 2 * copies, 0.0))

    def forward(self, x: Array, y: Array, extras: Sequence[Array], *_: Any) -> None:
        """See Layer. Keeps the probabilities, (rows, kv_heads, heads of each, keys, queries)."""
        q, k, v = self._heads(x)
        p = self._probabilities(extras[0], len(q))
        np.matmul(k.swapaxes(-1, -2), q, out=p)
        self._softmax(p)
        np.copyto(self._by_head(y), np.matmul(v, p))

    def why_not_continued(self) -> str | None:
        """See Layer."""
        return None if self.causal else "attention also uses the tokens after a position (causal: false)"

    def continue_forward(self, x: Array, y: Array, p: Any, past: Past, *_: Any) -> None:
        """See Layer. Keeps keys and values, (kv_heads, width, positions)."""
        angles = _angles(self.width, self.positions, x.dtype.name) if self.rotary else None
        np.copyto(y, attend_to_past(x, past, (self.heads, self.kv_heads, self.width), self.positions, angles))

    def backward_input(self, x: Array, y: Array, extras: Sequence[Array], dy: Array, dx: Array, *_: Any) -> None:
        """With P the probabilities, dP = vᵀdy and dS = P · (dP − Σ over keys of P · dP): dq = k·dS, dk = q·dSᵀ, dv =
        dy·Pᵀ; q carries the 1/√width of the scores."""
        q, k, v = self._heads(x)
        p = self._probabilities(extras[0], len(q))
        d = np.ascontiguousarray(self._by_head(dy))
        dq, dk, dv = self._parts(dx)
        shared = self.heads != self.kv_heads
        total = np.matmul(d, p.swapaxes(-1, -2))
        np.copyto(dv, total.sum(axis=2, keepdims=True) if shared else total)
        ds = np.matmul(v.swapaxes(-1, -2), d)
        mean = np.einsum("rghkq,rghkq->rghq", p, ds)
        np.subtract(ds, mean[..., None, :], out=ds)
        np.multiply(ds, p, out=ds)
        g = np.matmul(k, ds)
        np.multiply(g, self._scale(g), out=g)
        np.copyto(dq, self._turned(g, back=True))
        g = np.matmul(q, ds.swapaxes(-1, -2))
        if shared:
            g = g.sum(axis=2, keepdims=True)
        np.copyto(dk, self._turned(g, back=True))

    def _probabilities(self, extra: Array, rows: int) -> Array:
        t = self.positions
        return extra.reshape(rows, self.kv_heads, self.heads // self.kv_heads, t, t)

    def _softmax(self, scores: Array) -> None:
        """Apply softmax over the keys, in place. In a causal layer the scores of keys after the query count as −∞."""
        if self.causal:
            np.add(scores, _mask(self.positions, scores.dtype.name), out=scores)
        np.subtract(scores, scores.max(axis=-2, keepdims=True), out=scores)
        np.exp(scores, out=scores)
        np.divide(scores, scores.sum(axis=-2, keepdims=True), out=scores)

    def _heads(self, x: Array) -> tuple[Array, Array, Array]:
        """Return contiguous queries (rows, kv_heads, heads of each, width, positions), scaled; keys and values (…, 1,
        …)."""
        q, k, v = (np.ascontiguousarray(part) for part in self._parts(x))
        q, k = self._turned(q), self._turned(k)
        return np.multiply(q, self._scale(q)), k, v

    def _parts(self, a: Array) -> Sequence[Array]:
        """Return the parts of queries, keys and values of an array with the layer's input features, as views by
        head."""
        n, shared, g, w = self.width * self.heads, self.width * self.kv_heads, self.kv_heads, self.width
        cuts = (a[:n], a[n : n + shared], a[n + shared :])
        heads = (self.heads // g, 1, 1)
        return [
            part.reshape(g, h, w, -1, self.positions).transpose(3, 0, 1, 2, 4)
            for part, h in zip(cuts, heads, strict=True)
        ]

    def _by_head(self, a: Array) -> Array:
        g = self.kv_heads
        return a.reshape(g, self.heads // g, self.width, -1, self.positions).transpose(3, 0, 1, 2, 4)

    def _scale(self, like: Array) -> Any:
        return like.dtype.type(1 / math.sqrt(self.width))

    def _turned(self, a: Array, *, back: bool = False) -> Array:
        """Rotate features i and i + width/2 of each position by the angle position · base^(−2i / width)."""
        if not self.rotary:
            return a
        cos, sin = _angles(self.width, self.positions, a.dtype.name)
        sin = -sin if back else sin
        half = self.width // 2
        first, second = a[..., :half, :], a[..., half:, :]
        result: Array = np.empty_like(a)
        result[..., :half, :] = first * cos - second * sin
        result[..., half:, :] = second * cos + first * sin
        return result


@lru_cache(maxsize=16)
def _mask(positions: int, dtype: str) -> Array:
    """Return an array (keys, queries): 0 if the query attends to the key, else −∞."""
    mask: Array = np.zeros((positions, positions), dtype=dtype)
    mask[np.tril_indices(positions, -1)] = -np.inf
    mask.flags.writeable = False
    return mask


@lru_cache(maxsize=16)
def _angles(width: int, positions: int, dtype: str) -> tuple[Array, Array]:
    rates = ROTARY_BASE ** (-np.arange(0, width, 2) / width)
    angles = rates[:, None] * np.arange(positions)
    return np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)


def _check(options: DotProductOptions, shape: Shape) -> None:
    if not shape.positions or shape.vocabulary:
        raise LayerProblem(f"its input must be vectors at positions, but is {shape}; put embedding before it")
    kv_heads = options.kv_heads or options.heads
    if options.heads % kv_heads:
        raise LayerProblem(f"kv_heads: got {kv_heads}, must divide heads, which is {options.heads}")


def _check_rotary(options: DotProductOptions, width: int) -> None:
    if options.rotary and width % 2:
        raise LayerProblem(f"rotary: a head has {width} features, must be an even number")


def _build(options: DotProductOptions, shape: Shape, path: tuple[int, ...]) -> Layer:
    _check(options, shape)
    parts = options.heads + 2 * (options.kv_heads or options.heads)
    if shape.features % parts:
        raise LayerProblem(
            f"its input has {shape.features} features, must be a multiple of {parts}: "
            f"{options.heads} heads of queries and {parts - options.heads} of keys and values"
        )
    _check_rotary(options, shape.features // parts)
    return DotProductAttention(shape, options)


def _expand(options: AttentionOptions, shape: Shape) -> Sequence[LayerSpec]:
    _check(options, shape)
    if shape.features % options.heads:
        raise LayerProblem(f"heads: got {options.heads}, must divide the {shape.features} features of its input")
    width = shape.features // options.heads
    _check_rotary(options, width)
    projected = shape.features + 2 * width * (options.kv_heads or options.heads)
    core = DotProductOptions(
        heads=options.heads, kv_heads=options.kv_heads, causal=options.causal, rotary=options.rotary
    )
    return (
        LayerSpec("linear", LinearOptions(units=projected, bias=options.bias)),
        LayerSpec("dot_product_attention", core),
        LayerSpec("linear", LinearOptions(units=shape.features, bias=options.bias)),
    )


DOT_PRODUCT_ATTENTION = LayerKind(name="dot_product_attention", options=DotProductOptions, build=_build)
ATTENTION = LayerKind(name="attention", options=AttentionOptions, expand=_expand)
