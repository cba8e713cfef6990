from __future__ import annotations

import numpy as np
import pytest

from stages.loss import evaluate_loss, loss_count
from stages.spec import LossKind
from tests.finite_difference import numerical_gradient


@pytest.mark.parametrize("kind", ["cross_entropy", "mse", "sum_of_squares"])
def test_loss_gradient_is_the_finite_difference(kind: LossKind) -> None:
    rng = np.random.default_rng(0)
    f = rng.normal(size=(3, 5))
    target = rng.integers(0, 3, size=5) if kind == "cross_entropy" else rng.normal(size=(3, 5))
    count = loss_count(kind, 20, 3)
    expected = numerical_gradient(lambda: evaluate_loss(kind, f, target, count).total / count, f)
    np.testing.assert_allclose(evaluate_loss(kind, f, target, count).gradient, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["cross_entropy", "mse", "sum_of_squares"])
def test_micro_batches_of_any_size_add_up_to_the_batch(kind: LossKind) -> None:
    rng = np.random.default_rng(1)
    f = rng.normal(size=(3, 11))
    target = rng.integers(0, 3, size=11) if kind == "cross_entropy" else rng.normal(size=(3, 11))
    count = loss_count(kind, 11, 3)
    whole = evaluate_loss(kind, f, target, count)
    parts = [evaluate_loss(kind, f[:, a:b], target[..., a:b], count) for a, b in [(0, 4), (4, 5), (5, 11)]]
    np.testing.assert_allclose(sum(p.total for p in parts), whole.total, rtol=1e-14)
    np.testing.assert_array_equal(np.concatenate([p.gradient for p in parts], axis=1), whole.gradient)


def test_cross_entropy_of_huge_outputs_is_finite_and_right() -> None:
    f = np.array([[1000.0, -1000.0], [0.0, 1000.0]], dtype=np.float32)
    result = evaluate_loss("cross_entropy", f, np.array([0, 0]), 2)
    assert result.total == 2000.0
    assert result.correct == 1
    assert result.gradient.dtype == np.float32
    np.testing.assert_array_equal(result.gradient, np.array([[0, -0.5], [0, 0.5]], dtype=np.float32))


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    f = np.random.default_rng(2).normal(size=(4, 6)).astype(np.float32) * 30
    labels = np.array([0, 1, 2, 3, 0, 1])
    whole = evaluate_loss("cross_entropy", f, labels, 6).gradient
    alone = np.concatenate([evaluate_loss("cross_entropy", f[:, [j]], labels[[j]], 6).gradient for j in range(6)], 1)
    np.testing.assert_array_equal(whole, alone)


def test_counts_are_those_of_torch_and_the_lecture() -> None:
    assert [loss_count(kind, 7, 3) for kind in ("cross_entropy", "mse", "sum_of_squares")] == [7, 21, 1]
