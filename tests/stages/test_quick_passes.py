"""Passes over elements that are quicker in another form: they have the bits of the plain one."""

from __future__ import annotations

import numpy as np
import pytest

from stages.arrays import CACHE_NUMBERS, copy_into, zeros
from stages.layers.activations import Relu
from stages.losses.differences import L1, MeanSquare
from stages.shapes import Shape

_SHAPES = [
    (1, 1),
    (3, 5),
    (7, 31),
    (64, 32),
    (5, CACHE_NUMBERS // 5),
    (40, CACHE_NUMBERS // 16),
    (2, CACHE_NUMBERS + 9),
]


def _numbers(shape: tuple[int, int], precision: str) -> np.ndarray:
    """Random numbers, with zeros of both signs, infinities and the smallest numbers among them."""
    rng = np.random.default_rng(shape[0])
    found = rng.standard_normal(shape).astype(precision)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.finfo(precision).smallest_subnormal, -1e-42], precision)
    mask = rng.random(shape) < 0.3
    found[mask] = rng.choice(special, mask.sum())
    return found


@pytest.mark.parametrize("shape", _SHAPES)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_relu_has_the_bits_of_a_comparison_with_the_number_zero(shape: tuple[int, int], precision: str) -> None:
    """A zero stays the one that is not negative, NaN stays NaN."""
    x, dy = _numbers(shape, precision), _numbers(shape[::-1], precision).T.copy()
    layer, y, dx = Relu(Shape(shape[0])), np.empty_like(x), np.empty_like(dy)
    with np.errstate(invalid="ignore"):
        layer.forward(x, y)
        assert y.tobytes() == np.maximum(x, np.zeros((), precision)).tobytes()
        assert not np.signbit(y).any()
        layer.backward_input(x, y, (), dy, dx)
        assert dx.tobytes() == (dy * (y > 0)).tobytes()
        x.flat[::3] = np.nan
        layer.forward(x, x)  # over its input, as a stage lets it
        assert np.isnan(x.flat[::3]).all()


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 100, 300])
@pytest.mark.parametrize("features", [1, 3, 64, 256, 784, 1024])
def test_a_transpose_is_copied_in_parts_that_are_the_whole(features: int, rows: int) -> None:
    source = np.arange(rows * features, dtype=np.float32).reshape(rows, features)
    for array in (source.T, source.T.copy(), source[:, ::-1].T, source.T[:, ::-1]):
        out = np.full((features, rows), -1, np.float32)
        copy_into(out, array)
        np.testing.assert_array_equal(out, array)


@pytest.mark.parametrize("loss", [MeanSquare(), L1()])
def test_a_loss_of_differences_is_the_same_for_transposed_targets(loss: MeanSquare | L1) -> None:
    rng = np.random.default_rng(2)
    f, rows = rng.standard_normal((256, 200)).astype("f4"), rng.standard_normal((200, 256)).astype("f4")
    plain, transposed = (loss.evaluate(f.copy(), y, 77) for y in (rows.T.copy(), rows.T))
    assert (
        plain.total
        == transposed.total
        == float(getattr(np, "square" if loss.__class__ is MeanSquare else "abs")(f - rows.T).sum(dtype="f8"))
    )
    assert plain.gradient.tobytes() == transposed.gradient.tobytes()


def test_zeros_of_all_shapes_share_one_vector() -> None:
    found = [zeros(rows, columns, "f") for rows, columns in ((3, 5), (240, 128), (1, CACHE_NUMBERS))]
    assert all(np.shares_memory(found[0], other) for other in found[1:])
    long = zeros(2, CACHE_NUMBERS, "d")
    assert long.shape == (2, CACHE_NUMBERS)
    assert not long.any()
    assert long.base is not None
    assert long.strides == (0, 0), "a single long row takes no memory"
