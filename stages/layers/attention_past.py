"""Attention that continues a row: it keeps the keys and values of earlier positions instead of computing them again."""

from __future__ import annotations

import math

import numpy as np

from stages.arrays import Array
from stages.layers.base import Past


def attend_to_past(
    x: Array, past: Past, sizes: tuple[int, int, int], positions: int, angles: tuple[Array, Array] | None
) -> Array:
    """Return the output (heads · width, n) of causal attention for n positions from `past.length` on.

    `x` has their queries, keys and values as in [Note: heads]; `sizes` is (heads, kv_heads, width). The keys, already
    rotated, and the values are added to `past`. `angles` are the cosines and sines (width / 2, positions) of rotary.
    """
    heads, shared, width = sizes
    start, n = past.length, x.shape[1]
    q, k, v = np.split(x, [heads * width, (heads + shared) * width])
    q = q.reshape(shared, heads // shared, width, n)
    k, v = (part.reshape(shared, width, n) for part in (k, v))
    if angles is not None:
        cos, sin = (part[:, start : start + n] for part in angles)
        q, k = _turned(q, cos, sin), _turned(k, cos, sin)
    if not past.arrays:
        past.arrays = {name: np.empty((shared, width, positions), dtype=x.dtype) for name in ("keys", "values")}
    keys, values = past.arrays["keys"][..., : start + n], past.arrays["values"][..., : start + n]
    keys[..., start:], values[..., start:] = k, v
    scores = np.matmul(keys.swapaxes(-1, -2)[:, None], q * q.dtype.type(1 / math.sqrt(width)))  # (…, keys, queries)
    if n > 1:
        hidden = np.arange(start + n)[:, None] > start + np.arange(n)
        scores[..., hidden] = -np.inf
    np.subtract(scores, scores.max(axis=-2, keepdims=True), out=scores)
    np.exp(scores, out=scores)
    np.divide(scores, scores.sum(axis=-2, keepdims=True), out=scores)
    result: Array = np.matmul(values[:, None], scores).reshape(heads * width, n)
    return result


def _turned(a: Array, cos: Array, sin: Array) -> Array:
    first, second = np.split(a, 2, axis=-2)
    return np.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-2)
