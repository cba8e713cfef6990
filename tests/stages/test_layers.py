from __future__ import annotations

import numpy as np
import pytest

from stages.arrays import Array
from stages.layers.activations import LeakyRelu, Relu, Sigmoid, Silu, Softplus, Tanh
from stages.layers.base import EVALUATING, Layer, Moment
from stages.layers.gelu import Gelu, GeluTanh
from stages.layers.linear import Linear, LinearOptions
from stages.shapes import Shape
from tests.finite_difference import numerical_gradient

FOUR = Shape(4)
TRAINING = Moment(training=True)
ACTIVATIONS = [
    Relu(FOUR), LeakyRelu(FOUR, 0.1), LeakyRelu(FOUR, 0.0), Tanh(FOUR), Sigmoid(FOUR), Gelu(FOUR), GeluTanh(FOUR),
    Silu(FOUR), Softplus(FOUR),
]  # fmt: skip


def _apply(layer: Layer, x: Array) -> tuple[Array, list[Array]]:
    """Return the output, and the arrays that forward keeps."""
    out = np.empty((layer.shape_out.features, x.shape[1]), dtype=x.dtype)
    extras = [np.empty((extra.features, x.shape[1]), dtype=x.dtype) for extra in layer.extras]
    layer.forward(x, out, extras, (), TRAINING)
    return out, extras


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=lambda layer: type(layer).__name__)
def test_activation_gradient_is_the_finite_difference(layer: Layer) -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    expected = numerical_gradient(lambda: float((_apply(layer, x)[0] * dy).sum()), x)
    dx = np.empty_like(x)
    layer.backward_input(x, *_apply(layer, x), dy, dx, (), TRAINING)
    np.testing.assert_allclose(dx, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=lambda layer: type(layer).__name__)
def test_activation_may_write_over_what_it_reads(layer: Layer) -> None:
    rng = np.random.default_rng(1)
    x, dy = rng.normal(size=(4, 5)).astype(np.float32), rng.normal(size=(4, 5)).astype(np.float32)
    y, extras = _apply(layer, x)
    dx = np.empty_like(x)
    layer.backward_input(x, y, extras, dy, dx, (), TRAINING)
    assert y.dtype == dx.dtype == np.float32
    layer.backward_input(x, y, extras, dy, dy, (), TRAINING)
    np.testing.assert_array_equal(dy, dx)
    layer.forward(x, x, extras, (), TRAINING)
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=lambda layer: type(layer).__name__)
def test_activation_of_extreme_values_does_not_overflow(layer: Layer) -> None:
    x = np.array([[-1e4, -90.0, 0.0, 90.0, 1e4]], dtype=np.float32)
    with np.errstate(over="raise", invalid="raise"):
        assert np.isfinite(_apply(layer, np.repeat(x, 4, axis=0))[0]).all()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("out", "n_in", "rows"), [(3, 4, 5), (1, 4, 1), (4, 1, 3), (1, 1, 1)])
def test_linear_gradients_are_the_finite_differences(out: int, n_in: int, rows: int, bias: bool) -> None:
    layer, rng = Linear(Shape(n_in), LinearOptions(units=out, bias=bias)), np.random.default_rng(3)
    p = [rng.normal(size=spec.shape) for spec in layer.parameters]
    gradients = [np.zeros_like(value) for value in p]
    x, dy = rng.normal(size=(n_in, rows)), rng.normal(size=(out, rows))

    def loss() -> float:
        y = np.empty((out, rows))
        layer.forward(x, y, (), p, EVALUATING)
        return float((y * dy).sum())

    dx = np.empty_like(x)
    layer.backward_input(x, dy, (), dy, dx, p, EVALUATING)
    np.testing.assert_allclose(dx, numerical_gradient(loss, x), rtol=1e-6, atol=1e-8)
    layer.backward_weight(x, (), dy, gradients, accumulate=False)
    for gradient, value in zip(gradients, p, strict=True):
        np.testing.assert_allclose(gradient, numerical_gradient(loss, value), rtol=1e-6, atol=1e-8)
    once = [gradient.copy() for gradient in gradients]
    layer.backward_weight(x, (), dy, gradients, accumulate=True)
    np.testing.assert_allclose(gradients[0], 2 * once[0], rtol=1e-12)
    layer.backward_weight(x, (), dy, gradients, accumulate=False)
    for gradient, first in zip(gradients, once, strict=True):
        np.testing.assert_array_equal(gradient, first)
