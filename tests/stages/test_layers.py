from __future__ import annotations

import numpy as np
import pytest

from stages.arrays import Array
from stages.layers import Gelu, GeluTanh, Layer, LeakyRelu, Linear, Relu, Sigmoid, Tanh
from tests.finite_difference import numerical_gradient

ACTIVATIONS = [
    Relu(0, 4), LeakyRelu(0, 4, 0.1), LeakyRelu(0, 4, 0.0), Tanh(0, 4), Sigmoid(0, 4), Gelu(0, 4), GeluTanh(0, 4)
]  # fmt: skip


def _apply(layer: Layer, x: Array) -> Array:
    out = np.empty((layer.n_out, x.shape[1]), dtype=x.dtype)
    layer.forward(x, out)
    return out


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=lambda layer: type(layer).__name__)
def test_activation_gradient_is_the_finite_difference(layer: Layer) -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    expected = numerical_gradient(lambda: float((_apply(layer, x) * dy).sum()), x)
    dx = np.empty_like(x)
    layer.backward_input(x, _apply(layer, x), dy, dx)
    np.testing.assert_allclose(dx, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=lambda layer: type(layer).__name__)
def test_activation_may_write_over_what_it_reads(layer: Layer) -> None:
    rng = np.random.default_rng(1)
    x, dy = rng.normal(size=(4, 5)).astype(np.float32), rng.normal(size=(4, 5)).astype(np.float32)
    y = _apply(layer, x)
    dx = np.empty_like(x)
    layer.backward_input(x, y, dy, dx)
    assert y.dtype == dx.dtype == np.float32
    layer.backward_input(x, y, dy, dy)
    np.testing.assert_array_equal(dy, dx)
    layer.forward(x, x)
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=lambda layer: type(layer).__name__)
def test_activation_of_extreme_values_does_not_overflow(layer: Layer) -> None:
    x = np.array([[-1e4, -90.0, 0.0, 90.0, 1e4]], dtype=np.float32)
    with np.errstate(over="raise", invalid="raise"):
        assert np.isfinite(_apply(layer, np.repeat(x, 4, axis=0))).all()


def _linear(out: int, n_in: int, bias: bool) -> Linear:
    rng = np.random.default_rng(2)
    b = rng.normal(size=out) if bias else None
    return Linear(3, rng.normal(size=(out, n_in)), b, np.zeros((out, n_in)), np.zeros(out) if bias else None)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("out", "n_in", "rows"), [(3, 4, 5), (1, 4, 1), (4, 1, 3), (1, 1, 1)])
def test_linear_gradients_are_the_finite_differences(out: int, n_in: int, rows: int, bias: bool) -> None:
    layer, rng = _linear(out, n_in, bias), np.random.default_rng(3)
    x, dy = rng.normal(size=(n_in, rows)), rng.normal(size=(out, rows))

    def loss() -> float:
        return float((_apply(layer, x) * dy).sum())

    dx = np.empty_like(x)
    layer.backward_input(x, dy, dy, dx)
    np.testing.assert_allclose(dx, numerical_gradient(loss, x), rtol=1e-6, atol=1e-8)
    layer.backward_weight(x, dy, accumulate=False)
    np.testing.assert_allclose(layer.d_weight, numerical_gradient(loss, layer.weight), rtol=1e-6, atol=1e-8)
    once = layer.d_weight.copy()
    if layer.bias is not None and layer.d_bias is not None:
        np.testing.assert_allclose(layer.d_bias, numerical_gradient(loss, layer.bias), rtol=1e-6, atol=1e-8)
    layer.backward_weight(x, dy, accumulate=True)
    np.testing.assert_allclose(layer.d_weight, 2 * once, rtol=1e-12)
    layer.backward_weight(x, dy, accumulate=False)
    np.testing.assert_array_equal(layer.d_weight, once)
