"""GELU in float32 against the same functions in float64, over the whole range of float32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import log_ndtr

from stages.arrays import Array
from stages.layers.base import EVALUATING, Moment
from stages.layers.gelu import Gelu, GeluTanh
from stages.shapes import Shape

_Float64 = NDArray[np.float64]
_C = 2 * np.sqrt(2 / np.pi)


def _every(n: int) -> Array:
    """Return every n-th finite float32, denormal ones too, and the neighbourhoods of special values: (1, many)."""
    bits = np.arange(0, 2**32, n, dtype=np.uint32)
    special = np.array([0.0, 0.7518, 1.0, 5.0, 13.0, 14.0, 15.0, 50.0, 1e6, 1e19, 3.4e38], dtype=np.float32)
    edges = np.concatenate([special.view(np.uint32) + np.uint32(i) for i in range(3)])
    x = np.concatenate([bits, edges, edges | np.uint32(2**31)]).view(np.float32)
    return x[np.isfinite(x)][None]


def _exact(x: _Float64) -> _Float64:
    return np.asarray(x * np.exp(log_ndtr(x)))


def _exact_slope(x: _Float64) -> _Float64:
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(log_ndtr(x)) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi))


def _tanh(x: _Float64) -> _Float64:
    with np.errstate(over="ignore"):
        return np.asarray(x / (1 + np.exp(-_C * (x + 0.044715 * x**3))))


def _tanh_slope(x: _Float64) -> _Float64:
    x = np.clip(x, -12, 12)  # beyond, the derivative is 0 or 1 in float32
    e = np.exp(-_C * (x + 0.044715 * x**3))
    return np.asarray(1 / (1 + e) + x * e / (1 + e) ** 2 * _C * (1 + 3 * 0.044715 * x**2))


TRAINING = Moment(training=True)


def _apply(layer: Gelu | GeluTanh, x: Array) -> tuple[Array, Array]:
    y, kept, slope = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    layer.forward(x, y, [kept], (), TRAINING)
    layer.backward_input(x, y, [kept], np.ones_like(x), slope, (), TRAINING)
    return y, slope


@pytest.mark.parametrize(
    ("layer", "value", "slope", "slope_bound"),
    [(Gelu(Shape(1)), _exact, _exact_slope, 2e-7), (GeluTanh(Shape(1)), _tanh, _tanh_slope, 3e-7)],
)
def test_errors_are_within_the_bounds_that_are_documented(
    layer: Gelu | GeluTanh,
    value: Callable[[_Float64], _Float64],
    slope: Callable[[_Float64], _Float64],
    slope_bound: float,
) -> None:
    x = _every(4093)  # a prime, so that every pattern of low bits occurs
    y, dx = _apply(layer, x)
    wide = x.astype(np.float64)
    expected = value(wide)
    ulp = np.spacing(np.abs(expected).astype(np.float32)).astype(np.float64)
    assert (np.abs(y - expected) <= np.maximum(2 * ulp, 1e-7)).all()
    assert np.abs(dx - slope(wide)).max() <= slope_bound


def test_the_negative_tail_keeps_its_relative_accuracy() -> None:
    """x/2 · (1 + erf) has no exact digit left at −6."""
    x = np.linspace(-13, -1e-3, 200_001, dtype=np.float32)[None]
    y, dx = _apply(Gelu(Shape(1)), x)
    wide = x.astype(np.float64)
    assert (np.abs(y / _exact(wide) - 1) <= 6e-7 + 6e-8 * wide**2).all()
    below = wide < -1.5  # the derivative is 0 at −0.75
    assert (np.abs(dx / _exact_slope(wide) - 1)[below] <= 4e-6 + 2e-7 * wide[below] ** 2).all()


@pytest.mark.parametrize("layer", [Gelu(Shape(1)), GeluTanh(Shape(1))])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_that_are_not_finite_are_passed_on(layer: Gelu | GeluTanh, dtype: type) -> None:
    with np.errstate(all="ignore"):
        y, dx = _apply(layer, np.array([[np.nan, -np.nan, np.inf, 1.0]], dtype=dtype))
    assert np.isnan(y[0, :2]).all()
    assert np.isnan(dx[0, :2]).all()
    assert y[0, 2] == np.inf


@pytest.mark.parametrize("layer", [Gelu(Shape(1)), GeluTanh(Shape(1))])
def test_an_element_has_the_same_bits_wherever_it_stands(layer: Gelu | GeluTanh) -> None:
    x = np.random.default_rng(0).normal(0, 3, 70_000).astype(np.float32)  # more than two blocks
    x[[100, 40_000]] = 40, -1e6  # the only ones whose argument is limited
    y, dx = _apply(layer, x[None])
    for first, last in [(0, 1), (1, 18), (3, 4_000), (32_765, 32_771), (17, 70_000)]:
        part_y, part_dx = _apply(layer, x[first:last].reshape(-1, 1))
        assert part_y.tobytes() == y[0, first:last].tobytes()
        assert part_dx.tobytes() == dx[0, first:last].tobytes()


def test_a_strided_input_is_taken_in() -> None:
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32).T
    layer = Gelu(Shape(4))
    expected, found = np.empty((4, 5), np.float32), np.empty((4, 5), np.float32)
    layer.forward(np.ascontiguousarray(x), expected, [np.empty_like(expected)], (), EVALUATING)
    layer.forward(x, found, [np.empty_like(found)], (), EVALUATING)
    np.testing.assert_array_equal(found, expected)
