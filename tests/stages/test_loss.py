from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from stages.losses import LOSSES, build_loss, loss_entry
from tests.finite_difference import numerical_gradient
from tests.stages.losses import CASES, GOLDEN, case, divisor


def test_every_loss_has_a_case() -> None:
    assert {spec.kind for spec in CASES.values()} == LOSSES.keys()


@pytest.mark.parametrize("name", CASES)
def test_a_gradient_is_the_finite_difference(name: str) -> None:
    loss, f, targets = case(name)
    count = divisor(loss, targets, len(f))
    expected = numerical_gradient(lambda: loss.evaluate(f.copy(), targets, count).total / count, f)
    np.testing.assert_allclose(loss.evaluate(f.copy(), targets, count).gradient, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_torch_s(name: str) -> None:
    """The values that `python -m tests.stages.losses` has written."""
    loss, f, targets = case(name)
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))[name]
    count = divisor(loss, targets, len(f))
    found = loss.evaluate(f, targets, count)
    assert found.total / count == pytest.approx(golden["loss"], rel=1e-14)
    np.testing.assert_allclose(found.gradient, golden["gradient"], rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_over_many_classes_takes_one_array_beside_the_outputs(smoothing: float) -> None:
    """With 50,000 classes, one more array would be the largest part of a step's memory; `plan` counts only one."""
    loss = build_loss(loss_entry("cross_entropy", label_smoothing=smoothing))
    f = np.random.default_rng(1).normal(size=(4000, 64))
    targets = np.arange(64)
    tracemalloc.start()
    try:
        loss.evaluate(f, targets, 64)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * f.nbytes


@pytest.mark.parametrize("name", CASES)
def test_micro_batches_of_any_size_add_up_to_the_batch(name: str) -> None:
    """The gradient is the same to the bit, since a column's gradient depends only on it and on the whole batch's
    count."""
    loss, f, targets = case(name, columns=11)
    count = divisor(loss, targets, len(f))
    whole = loss.evaluate(f.copy(), targets, count)
    cuts = [(0, 4), (4, 5), (5, 6), (6, 11)]  # a loss that ignores labels has a micro-batch in which no label counts
    parts = [loss.evaluate(f[:, a:b].copy(), targets[..., a:b], count) for a, b in cuts]
    np.testing.assert_allclose(sum(p.total for p in parts), whole.total, rtol=1e-14)
    np.testing.assert_array_equal(np.concatenate([p.gradient for p in parts], axis=1), whole.gradient)
    assert whole.correct == (None if whole.correct is None else sum(p.correct or 0 for p in parts))


@pytest.mark.parametrize("name", CASES)
def test_float32_stays_float32(name: str) -> None:
    loss, f, targets = case(name)
    targets = targets if targets.dtype.kind == "i" else targets.astype(np.float32)
    assert loss.evaluate(f.astype(np.float32), targets, 7).gradient.dtype == np.float32


def test_huge_outputs_are_finite_and_right() -> None:
    f = np.array([[1000.0, -1000.0], [0.0, 1000.0]], dtype=np.float32)
    result = build_loss("cross_entropy").evaluate(f.copy(), np.array([0, 0]), 2)
    assert (result.total, result.correct) == (2000.0, 1)
    assert result.gradient.dtype == np.float32
    np.testing.assert_array_equal(result.gradient, np.array([[0, -0.5], [0, 0.5]], dtype=np.float32))
    with np.errstate(over="raise"):
        result = build_loss("binary_cross_entropy").evaluate(f, np.array([[1, 1], [0, 0]], dtype=np.float32), 4)
    assert result.total == pytest.approx(2000 + np.log(2))
    assert result.correct == 2


def test_labels_of_any_whole_type_can_be_ignored() -> None:
    """16-bit tokens cannot be −100; 0 is a token, and may be the ignored one."""
    f, labels = np.random.default_rng(1).normal(size=(5, 4)), np.array([3, 0, 1, 0])
    for ignored, counted in ((-100, 4), (0, 2)):
        loss = build_loss(loss_entry("cross_entropy", ignore_index=ignored))
        results = [loss.evaluate(f.copy(), labels.astype(kind), 2) for kind in (np.uint16, np.uint32, np.int64)]
        assert loss.n_counted(labels.astype(np.uint16)) == counted
        assert len({result.total for result in results}) == 1
    assert (results[0].gradient[:, [1, 3]] == 0).all()
    nothing = loss.evaluate(f, np.zeros(4, np.uint16), 0)
    assert (nothing.total, nothing.correct, bool(nothing.gradient.any())) == (0.0, 0, False)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    f = np.random.default_rng(2).normal(size=(4, 6)).astype(np.float32) * 30
    labels, loss = np.array([0, 1, 2, 3, 0, 1]), build_loss("cross_entropy")
    whole = loss.evaluate(f.copy(), labels, 6).gradient
    alone = np.concatenate([loss.evaluate(f[:, [j]], labels[[j]], 6).gradient for j in range(6)], 1)
    np.testing.assert_array_equal(whole, alone)


def test_counts_are_those_of_torch_and_the_lecture() -> None:
    counts = {kind: build_loss(kind).count(7, 3) for kind in LOSSES}
    assert counts == {
        "cross_entropy": 7,
        "binary_cross_entropy": 21,
        "mse": 21,
        "sum_of_squares": 1,
        "l1": 21,
        "huber": 21,
    }
