"""Attention (Vaswani et al. 2017, eq. 1): heads of queries, keys and values, and its short form with projections.

[Note: heads] The input holds the features of all queries, then of all keys, then of all values, head after head. In
products, each head of each row is a matrix (features of a head, positions). Scores have the shape (keys, queries), so
that values · probabilities has the layout of the layer's output and no array is transposed. Several heads of queries
may share a head of keys and values (Ainslie et al. 2023): head h of the queries uses head h // (heads / kv_heads).

[Note: softmax after the product] Queries are computed in chunks; in a causal layer a chunk uses only the keys up to its
end. The layer keeps unnormalised weights e^(s − M) of the scores s, where M is the largest score of a head in this row
and chunk. It divides the outputs, which are fewer than the weights, by the sum of the weights. If all scores of a query
are far below M, that sum is tiny and has lost digits: then the layer computes the weights of this head again, with the
largest score of each query as M.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from stages.arrays import Array, ones, set_or_add
from stages.layers.attention_past import attend_to_past
from stages.layers.base import ELEMENT, Cost, Extra, Layer, LayerKind, LayerProblem, Past, wrong_input
from stages.layers.linear import LinearOptions
from stages.layers.options import option
from stages.layers.sequential import LayerSpec
from stages.shapes import Shape

ROTARY_BASE = 10_000.0
CHUNK = 64
"""Queries in one product. Smaller chunks compute fewer pairs above the diagonal, larger products are faster."""

_LEAST_SUM: dict[str, Any] = {"f": np.float32(2.0**-80), "d": np.float64(2.0**-918)}
"""A smaller sum of weights has lost digits."""


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
    """softmax(kᵀq / √(features of a head)) over the keys, then values · probabilities; see [Note: heads] and [Note:
    softmax after the product]."""

    input_gradient_reads = frozenset({"y"})
    mixes_positions = True

    def __init__(self, shape: Shape, options: DotProductOptions) -> None:
        kv_heads = options.kv_heads or options.heads
        self.heads, self.kv_heads = options.heads, kv_heads
        self.causal, self.rotary = options.causal, options.rotary
        self.width = shape.features // (options.heads + 2 * kv_heads)
        self.positions = shape.positions
        self.shape_in, self.shape_out = shape, shape.with_features(self.width * options.heads)
        self._chunks = tuple(self._cut())
        self._pairs = sum(keys * (stop - first) for first, stop, keys in self._chunks)
        weights = -(-options.heads * self._pairs // shape.positions)
        self.extras = (Extra(shape.features + kv_heads), Extra(weights), Extra(options.heads))
        most = max(stop - first for first, stop, _ in self._chunks)
        self.scratch = 0, options.heads * (2 * self.width + 1 + most)

    def _cut(self) -> Iterator[tuple[int, int, int]]:
        """Yield (first, stop, keys) of each chunk: queries first … stop − 1 use the first `keys` keys."""
        for first in range(0, self.positions, CHUNK):
            stop = min(first + CHUNK, self.positions)
            yield first, stop, stop if self.causal else self.positions

    def cost(self) -> Cost:
        """See Layer."""
        product, scores = 2.0 * self.heads * self._pairs * self.width, ELEMENT * self.heads * self._pairs
        copies = ELEMENT * self.shape_in.numbers
        return Cost((2 * product, 4 * product, 0.0), (8 * scores + copies, 2 * scores + 4 * copies, 0.0))

    def forward(self, x: Array, y: Array, extras: Sequence[Array], *_: Any) -> None:
        """See Layer. Keep queries, keys and values by head, the weights of each chunk, and their inverse sums."""
        (q, k, v), weights, inverse = self._views(extras)
        queries, keys_, values = self._parts(x)
        np.copyto(k, keys_)
        np.copyto(v[..., :-1, :], values)
        v[..., -1, :] = 1
        if self.rotary:
            np.copyto(q, queries)
            self._turn(q)
            self._turn(k)
            queries = q
        np.multiply(queries, self._scale(q), out=q)
        out = self._by_head(y)
        for (first, stop, keys), e in zip(self._chunks, weights, strict=True):
            self._weigh(q[..., first:stop], k[..., :keys], e, inverse[..., first:stop])
            np.matmul(v[..., :-1, :keys], e, out=out[..., first:stop])
        across = self._across(y)
        np.multiply(across, _side_by_side(inverse), out=across)

    def why_not_continued(self) -> str | None:
        """See Layer."""
        return None if self.causal else "attention also uses the tokens after a position (causal: false)"

    def continue_forward(self, x: Array, y: Array, p: Any, past: Past, *_: Any) -> None:
        """See Layer. Keeps keys and values, (kv_heads, width, positions)."""
        angles = _angles(self.width, self.positions, x.dtype.char) if self.rotary else None
        np.copyto(y, attend_to_past(x, past, (self.heads, self.kv_heads, self.width), self.positions, angles))

    def backward_input(self, x: Array, y: Array, extras: Sequence[Array], dy: Array, dx: Array, *_: Any) -> None:
        """With E the weights, Z their sums, Σ a sum over features, ∘ element by element, and q that has the 1/√width:

            d  = dy / Z
            dv = d Eᵀ
            dS = E ∘ (vᵀd − Σ y ∘ d)
            dq = k dS / √width
            dk = q dSᵀ

        The bracket is one matrix product: vᵀ with a column of ones, times d with the row −Σ y ∘ d below it.
        """
        (q, k, v), weights, inverse = self._views(extras)
        d, product, scores = self._scratch(extras[-1], len(q))
        across = self._across(product.reshape(y.shape))  # first in the layout of y, whose lines are longer
        np.multiply(self._across(dy), _side_by_side(inverse), out=across)
        np.copyto(d[..., :-1, :], self._by_head(across))
        np.multiply(self._across(y), across, out=across)
        if self.positions == 1:  # a sum over lines of one number depends on the number of rows, unless they are copied
            across = np.ascontiguousarray(across.swapaxes(1, 2)).swapaxes(1, 2)
        sums = across.sum(axis=1).reshape(*inverse.shape[1:3], len(q), self.positions)
        np.negative(sums.transpose(2, 0, 1, 3), out=d[..., -1, :])
        dq, dk, dv = self._parts(dx)
        for (first, stop, keys), e in zip(reversed(self._chunks), reversed(weights), strict=True):
            ds = _first_numbers(scores, e.shape)
            np.matmul(v[..., :keys].swapaxes(-1, -2), d[..., first:stop], out=ds)
            np.multiply(ds, e, out=ds)
            np.matmul(k[..., :keys], ds, out=dq[..., first:stop])
            for total, left, right in ((dv, d[..., :-1, first:stop], e), (dk, q[..., first:stop], ds)):
                self._add(total[..., :keys], left, right, product, keys, begins=stop == self.positions)
        of_queries = dx[: self.width * self.heads]
        np.multiply(of_queries, self._scale(dx), out=of_queries)
        if self.rotary:
            self._turn(dq, back=True)
            self._turn(dk, back=True)

    def _weigh(self, q: Array, k: Array, e: Array, inverse: Array) -> None:
        """e ← the weights of a chunk, inverse ← 1 / Σ over the keys; see [Note: softmax after the product]."""
        keys, queries = e.shape[-2:]
        np.matmul(k.swapaxes(-1, -2), q, out=e)
        flat = e.reshape(-1, keys * queries)
        np.subtract(flat, flat.max(axis=1, keepdims=True), out=flat)
        np.exp(e, out=e)
        if self.causal:
            corner = e[..., keys - queries :, :]
            np.multiply(corner, _seen(queries, e.dtype.char), out=corner)
        np.matmul(ones(keys, e.dtype.char)[None], e, out=inverse)
        least = _LEAST_SUM[e.dtype.char]
        if not inverse.min() >= least:  # or NaN
            for row, group, head in np.argwhere((inverse < least).any(axis=(-2, -1))):
                self._weigh_alone(q[row, group, head], k[row, group, 0], e[row, group, head])
                inverse[row, group, head] = e[row, group, head].sum(axis=0)
        np.divide(1, inverse, out=inverse)

    def _weigh_alone(self, q: Array, k: Array, e: Array) -> None:
        """e ← the weights of one head, with the largest score of each query as M."""
        keys, queries = e.shape
        np.matmul(k.T, q, out=e)
        if self.causal:
            e[keys - queries :][_seen(queries, e.dtype.char) == 0] = -np.inf
        np.subtract(e, e.max(axis=0), out=e)
        np.exp(e, out=e)

    def _add(self, total: Array, left: Array, right: Array, space: Array, keys: int, *, begins: bool) -> None:
        """Set `total` to left · rightᵀ if it `begins`, else add that product. Products of heads of queries that share a
        head of keys and values are summed."""
        shared = self.heads != self.kv_heads
        if begins and not shared:
            np.matmul(left, right.swapaxes(-1, -2), out=total)
            return
        product = _first_numbers(space, (*space.shape[:-1], keys))
        np.matmul(left, right.swapaxes(-1, -2), out=product)
        part = product.sum(axis=2, keepdims=True) if shared else product
        set_or_add(total, part, accumulate=not begins)

    def _views(self, extras: Sequence[Array]) -> tuple[tuple[Array, Array, Array], list[Array], Array]:
        """Return what forward keeps, by row and head: queries, keys, values with a row of ones below them; the weights
        of each chunk (rows, kv_heads, heads of each, keys, queries); inverse sums (…, 1, positions)."""
        g, w, t = self.kv_heads, self.width, self.positions
        each, flat = self.heads // g, extras[0].reshape(-1)
        rows = extras[2].size // (self.heads * t)
        q, k, v = _cut_up(flat, [(rows, g, each, w, t), (rows, g, 1, w, t), (rows, g, 1, w + 1, t)])
        shapes = [(rows, g, each, keys, stop - first) for first, stop, keys in self._chunks]
        return (q, k, v), _cut_up(extras[1].reshape(-1), shapes), extras[2].reshape(rows, g, each, 1, t)

    def _scratch(self, array: Array, rows: int) -> list[Array]:
        g, w, t = self.kv_heads, self.width, self.positions
        each = self.heads // g
        most = max(stop - first for first, stop, _ in self._chunks)
        return _cut_up(array.reshape(-1), [(rows, g, each, w + 1, t), (rows, g, each, w, t), (rows, g, each, most, t)])

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

    def _across(self, a: Array) -> Array:
        """Return (heads, features of a head, columns) of an array with the layer's output features, as a view."""
        return a.reshape(self.heads, self.width, -1)

    def _scale(self, like: Array) -> Any:
        return like.dtype.type(1 / math.sqrt(self.width))

    def _turn(self, a: Array, *, back: bool = False) -> None:
        """Rotate features i and i + width/2 of each position by the angle position · base^(−2i / width), in place."""
        cos, sin = _angles(self.width, self.positions, a.dtype.char)
        sin = -sin if back else sin
        half = self.width // 2
        for row in a:  # one at a time: intermediate results are small
            first, second = row[..., :half, :], row[..., half:, :]
            turned = first * cos - second * sin
            np.copyto(second, second * cos + first * sin)
            np.copyto(first, turned)


def _side_by_side(inverse: Array) -> Array:
    """Return the inverse sums of all rows, (heads, 1, columns)."""
    rows, groups, each, _, positions = inverse.shape
    return inverse.transpose(1, 2, 3, 0, 4).reshape(groups * each, 1, rows * positions)


def _first_numbers(array: Array, shape: tuple[int, ...]) -> Array:
    """Return a contiguous array of this shape that begins where the larger contiguous one begins."""
    return array.reshape(-1)[: math.prod(shape)].reshape(shape)


def _cut_up(flat: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Return views of a vector with these shapes, one after another."""
    found, start = [], 0
    for shape in shapes:
        found.append(flat[start : start + math.prod(shape)].reshape(shape))
        start += math.prod(shape)
    return found


@lru_cache(maxsize=64)
def _seen(positions: int, dtype: str) -> Array:
    """Return an array (keys, queries): 1 if the query attends to the key, else 0."""
    seen: Array = np.triu(np.ones((positions, positions), dtype=dtype))
    seen.flags.writeable = False
    return seen


@lru_cache(maxsize=16)
def _angles(width: int, positions: int, dtype: str) -> tuple[Array, Array]:
    rates = ROTARY_BASE ** (-np.arange(0, width, 2) / width)
    angles = rates[:, None] * np.arange(positions)
    return np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)


def _check(options: DotProductOptions, shape: Shape) -> None:
    if not shape.positions or shape.vocabulary:
        raise wrong_input("be vectors at positions", shape, "put embedding before it")
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
