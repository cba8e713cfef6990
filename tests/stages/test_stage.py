from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.arrays import Array
from stages.losses import build_loss
from stages.spec import ModelSpec, Precision, SgdSpec
from stages.stage import Stage
from tests.finite_difference import numerical_gradient
from tests.stages.flat import flat_layer

PLAIN = SgdSpec(learning_rate=0.1)


def _model(kinds: str, precision: Precision = "float64", width: int = 5) -> ModelSpec:
    layers = tuple(flat_layer(c, width) for c in kinds)
    return ModelSpec(
        input_shape=(4,),
        layers=layers,
        loss="sum_of_squares",
        precision=precision,
        seed=3,
    )


def _step(stages: list[Stage], x: Array, y: Array, cuts: list[int]) -> float:
    """Run one step through the stages, all forwards first, with micro-batches cut at `cuts`. Return the loss."""
    parts = list(zip([0, *cuts], [*cuts, x.shape[1]], strict=True))
    for stage in stages:
        stage.begin_step(len(parts))
    total = 0.0
    for j, (a, b) in enumerate(parts):
        f = x[:, a:b]
        for stage in stages:
            f = stage.forward(j, f).copy()
        result = build_loss("sum_of_squares").evaluate(f, y[:, a:b], 1)
        total += result.total
        gradient = result.gradient
        for stage in reversed(stages):
            gradient = stage.backward_input(j, gradient).copy()
        for stage in stages:
            stage.backward_weight(j)
    return total


@pytest.mark.parametrize("kinds", ["L", "LrL", "tLgfLs", "GLrLG", "LkLtL", "gLL", "rtLrg", "LLrtsk"])
@pytest.mark.parametrize("cut", [None, 1, 2])
def test_parameter_gradients_are_the_finite_differences(kinds: str, cut: int | None) -> None:
    model, rng = _model(kinds), np.random.default_rng(0)
    bounds = [0, len(kinds)] if cut is None or cut >= len(kinds) else [0, cut, len(kinds)]
    stages = [Stage(model, a, b, PLAIN) for a, b in pairwise(bounds)]
    x, y = rng.normal(size=(4, 6)), rng.normal(size=(model.network.output.numbers, 6))
    for stage in stages:
        stage.parameters.values[:] += 0.1 * rng.normal(size=stage.parameters.values.shape)
    _step(stages, x, y, [2, 3])
    found = [stage.parameters.named(stage.parameters.gradients) for stage in stages]
    for stage, gradients in zip(stages, found, strict=True):
        for slot in stage.parameters.slots:
            value = stage.parameters.value(slot.name)
            expected = numerical_gradient(lambda: _step(stages, x, y, []), value)
            np.testing.assert_allclose(gradients[slot.name], expected, rtol=2e-6, atol=1e-6, err_msg=slot.name)


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.text("Lrktsgf", min_size=1, max_size=7),
    rows=st.integers(1, 12),
    m=st.integers(1, 5),
    group=st.integers(1, 4),
    data=st.data(),
)
def test_any_cut_gives_bitwise_the_gradients_of_one_stage(
    kinds: str, rows: int, m: int, group: int, data: st.DataObject
) -> None:
    model = _model(kinds, "float32")
    cuts = data.draw(st.sets(st.integers(1, len(kinds) - 1))) if len(kinds) > 1 else set()
    bounds = [0, *sorted(cuts), len(kinds)]
    rng = np.random.default_rng(5)
    x = rng.normal(size=(rows, 4)).astype(np.float32).T
    y = rng.normal(size=(model.network.output.numbers, rows)).astype(np.float32)
    sizes = [len(part) for part in np.array_split(np.arange(rows), m) if len(part)]
    micro = list(np.cumsum(sizes)[:-1])
    whole = [Stage(model, 0, len(kinds), PLAIN, weight_grad_group=group)]
    split = [Stage(model, a, b, PLAIN, weight_grad_group=group) for a, b in pairwise(bounds)]
    assert _step(whole, x, y, micro) == _step(split, x, y, micro)
    expected = whole[0].parameters.named(whole[0].parameters.gradients)
    found = {k: v for s in split for k, v in s.parameters.named(s.parameters.gradients).items()}
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    for stage in (*whole, *split):
        assert stage.buffers.lent_bytes == 0


def test_weight_gradients_are_added_in_ascending_order_whatever_the_schedule_asks() -> None:
    model = _model("LrL", "float32")
    rng = np.random.default_rng(6)
    xs = [rng.normal(size=(4, 3)).astype(np.float32) for _ in range(4)]
    dys = [rng.normal(size=(5, 3)).astype(np.float32) for _ in range(4)]

    def gradients(order: list[int], group: int) -> Array:
        stage = Stage(model, 0, 3, PLAIN, weight_grad_group=group)
        stage.begin_step(4)
        for j in range(4):
            stage.forward(j, xs[j])
        for j in order:
            stage.backward_input(j, dys[j])
            stage.backward_weight(j)
        return stage.parameters.gradients

    for group in (1, 2, 3):
        np.testing.assert_array_equal(gradients([3, 1, 2, 0], group), gradients([0, 1, 2, 3], group))


def test_saved_values_are_counted_and_freed_when_used() -> None:
    stage = Stage(_model("LrL", "float32"), 0, 3, PLAIN)
    x, dy = np.ones((4, 2), np.float32), np.ones((5, 2), np.float32)
    stage.begin_step(2)
    stage.forward(0, x)
    kept = (4 + 5) * 2 * 4  # the inputs of both linear layers; ReLU's output is the second of them
    assert stage.buffers.lent_bytes == kept
    stage.forward(1, x)
    assert stage.buffers.lent_bytes == 2 * kept
    stage.backward_input(0, dy)
    assert stage.buffers.lent_bytes == 2 * kept + (5 + 5) * 2 * 4  # ∂ℓ/∂f of both
    stage.backward_weight(0)
    assert stage.buffers.lent_bytes == kept
    stage.discard()
    assert stage.buffers.lent_bytes == 0


def test_dtype_stays_float32_everywhere() -> None:
    stage = Stage(
        _model("LgLtLk", "float32"), 0, 6, SgdSpec(learning_rate=0.1, momentum=0.9, weight_decay=0.1, nesterov=True)
    )
    stage.begin_step(1)
    x = np.ones((2, 4), np.float32).T
    assert stage.forward(0, x).dtype == np.float32
    assert stage.backward_input(0, np.ones((5, 2), np.float32)).dtype == np.float32
    stage.backward_weight(0)
    stage.update(1, 0.1, 0.5)
    assert stage.parameters.values.dtype == stage.parameters.gradients.dtype == np.float32


def test_evaluation_gives_the_outputs_of_training_and_keeps_nothing() -> None:
    stage = Stage(_model("LgLtLk", "float32"), 0, 6, PLAIN)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    stage.begin_step(1)
    trained = stage.forward(0, x).copy()
    stage.discard()
    np.testing.assert_array_equal(stage.infer(x), trained)
    assert stage.buffers.lent_bytes == 0
