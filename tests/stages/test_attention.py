"""Attention against its definition: several chunks of queries, and scores that are far apart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from stages.arrays import Array
from stages.layers import attention
from stages.layers.attention import DotProductAttention, DotProductOptions
from stages.layers.base import Moment
from stages.shapes import Shape
from tests.finite_difference import numerical_gradient

WIDTH = 3


def _run(layer: DotProductAttention, x: Array, dy: Array) -> tuple[Array, Array]:
    """Return the output and ∂ℓ/∂x. Work space begins as NaN, so that a number read before it is written shows."""
    y, dx = np.empty_like(dy), np.empty_like(x)
    extras = [np.full((extra.features, x.shape[1]), np.nan, dtype=x.dtype) for extra in layer.extras]
    spaces = [[np.full((n, x.shape[1]), np.nan, dtype=x.dtype)] if n else [] for n in layer.scratch]
    layer.forward(x, y, extras + spaces[0], (), Moment(training=True))
    layer.backward_input(x, y, extras + spaces[1], dy, dx, (), Moment(training=True))
    return y, dx


def _defined(x: Array, rows: int, heads: int, kv_heads: int, causal: bool) -> Array:
    """Return softmax(kᵀq / √width) · v, head by head, in the order of the definition."""
    t = x.shape[1] // rows
    parts = np.split(x.reshape(-1, rows, t), [heads * WIDTH, (heads + kv_heads) * WIDTH])
    q, k, v = (part.reshape(-1, WIDTH, rows, t) for part in parts)
    y = np.empty((heads, WIDTH, rows, t), dtype=x.dtype)
    for head in range(heads):
        for row in range(rows):
            own = head // (heads // kv_heads)
            scores = k[own, :, row].T @ q[head, :, row] / math.sqrt(WIDTH)
            if causal:
                scores[np.tril_indices(t, -1)] = -np.inf
            e = np.exp(scores - scores.max(axis=0))
            y[head, :, row] = v[own, :, row] @ (e / e.sum(axis=0))
    return y.reshape(heads * WIDTH, rows * t)


@pytest.mark.parametrize("chunk", [1, 3, 7, 64])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (4, 2), (3, 1)])
def test_outputs_and_gradients_do_not_depend_on_chunks(
    monkeypatch: pytest.MonkeyPatch, heads: int, kv_heads: int, causal: bool, chunk: int
) -> None:
    monkeypatch.setattr(attention, "CHUNK", chunk)
    rows, t, rng = 2, 7, np.random.default_rng(0)
    shape = Shape((heads + 2 * kv_heads) * WIDTH, t)
    layer = DotProductAttention(shape, DotProductOptions(heads=heads, kv_heads=kv_heads, causal=causal))
    x, dy = rng.normal(size=(shape.features, rows * t)), rng.normal(size=(heads * WIDTH, rows * t))
    y, dx = _run(layer, x, dy)
    np.testing.assert_allclose(y, _defined(x, rows, heads, kv_heads, causal), rtol=1e-12, atol=1e-13)
    expected = numerical_gradient(lambda: float((_defined(x, rows, heads, kv_heads, causal) * dy).sum()), x)
    np.testing.assert_allclose(dx, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("causal", [True, False])
def test_a_query_far_below_the_largest_score_keeps_its_digits(causal: bool, dtype: Any) -> None:
    """One query's scores are so large that e^(score − largest) of the others is 0 in float32."""
    rows, t, rng = 2, 5, np.random.default_rng(1)
    layer = DotProductAttention(Shape(3 * WIDTH, t), DotProductOptions(heads=1, causal=causal))
    x = rng.normal(size=(3 * WIDTH, rows * t))
    x[:WIDTH, 3] = 900 * np.sign(x[WIDTH : 2 * WIDTH, 0])  # query 3 of row 0 meets key 0
    dy = rng.normal(size=(WIDTH, rows * t))
    y, dx = _run(layer, x.astype(dtype), dy.astype(dtype))
    assert y.dtype == dx.dtype == dtype
    tolerance = 1e-3 if dtype is np.float32 else 1e-10
    np.testing.assert_allclose(y, _defined(x, rows, 1, 1, causal), rtol=tolerance, atol=tolerance)
    assert np.isfinite(dx).all()
    other = slice(t, None)
    alone = _run(
        layer, np.ascontiguousarray(x[:, other]).astype(dtype), np.ascontiguousarray(dy[:, other]).astype(dtype)
    )
    np.testing.assert_array_equal(y[:, other], alone[0], err_msg="a row does not depend on another")
    np.testing.assert_array_equal(dx[:, other], alone[1])


def test_a_row_of_one_position_does_not_depend_on_the_others() -> None:
    """With one position, the sum over features goes over neighbours in memory, which NumPy adds in pairs."""
    width, rows, rng = 32, 3, np.random.default_rng(3)
    layer = DotProductAttention(Shape(3 * width, 1), DotProductOptions(heads=1))
    x, dy = (rng.standard_normal((n * width, rows), dtype=np.float32) for n in (3, 1))
    _, dx = _run(layer, x, dy)
    for row in range(rows):
        _, alone = _run(layer, x[:, row : row + 1].copy(), dy[:, row : row + 1].copy())
        np.testing.assert_array_equal(dx[:, row : row + 1], alone)
