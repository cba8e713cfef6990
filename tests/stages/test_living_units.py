"""Dead units are counted without a change to any bit of the training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coordinator.job.spec import parse_job
from stages.layers.base import Moment
from stages.living_units import ENOUGH_COLUMNS, DeadUnits
from stages.stage import Stage

_COLUMNS = ENOUGH_COLUMNS
_AT = Moment(training=True)


def _stage(*layers: Any, recompute: bool = False) -> Stage:
    spec = parse_job(
        {
            "model": {"input": [3], "layers": [*layers, {"linear": {"units": 2}}], "loss": "mse"},
            "data": {"source": "diabetes"},
            "training": {"epochs": 1, "batch_size": 8, "optimizer": {"sgd": {"learning_rate": 0.1}}},
        }
    )
    model = spec.model_spec()
    return Stage(model, 0, len(model.network.ops), spec.optimizer(), recompute=recompute)


def _with_bias(stage: Stage, bias: list[float]) -> Stage:
    stage.parameters.value("0.weight")[:] *= 0.01
    stage.parameters.value("0.bias")[:] = bias
    return stage


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    ("kind", "bias", "dead"),
    [
        ("relu", [-1, 1, -1, 1], 2),
        ({"leaky_relu": {"slope": 0}}, [-1, 1, -1, 1], 2),
        ("tanh", [-40, 1, 40, 1], 2),
        ("sigmoid", [-200, 1, 200, -1], 2),
    ],
)
def test_units_that_pass_no_gradient_for_any_row_are_counted(
    kind: Any, bias: list[float], dead: int, recompute: bool
) -> None:
    stage = _with_bias(_stage({"linear": {"units": 4}}, kind, recompute=recompute), bias)
    x = np.random.default_rng(1).normal(size=(3, _COLUMNS)).astype(np.float32)
    stage.begin_step(1)
    stage.forward(0, x, _AT, look=True)
    stage.backward(0, np.ones((2, _COLUMNS), dtype=np.float32))
    name = kind if isinstance(kind, str) else "leaky_relu"
    assert stage.living.report() == (DeadUnits(f"1 ({name})", dead, 4, _COLUMNS),)
    gradients = stage.parameters.view(stage.parameters.gradients, "0.weight")
    assert [bool(row.any()) for row in gradients] == [abs(b) == 1 and (b > 0 or name == "sigmoid") for b in bias]


@pytest.mark.parametrize("kind", [{"leaky_relu": {"slope": 0.01}}, "gelu", "silu", "softplus"])
def test_layers_that_always_pass_a_gradient_are_not_looked_at(kind: Any) -> None:
    stage = _with_bias(_stage({"linear": {"units": 4}}, kind), [-1.0] * 4)
    stage.begin_step(1)
    stage.forward(0, np.ones((3, _COLUMNS), dtype=np.float32), _AT, look=True)
    assert stage.living.report() == ()


def test_a_unit_lives_if_any_micro_batch_lets_it() -> None:
    stage = _with_bias(_stage({"linear": {"units": 2}}, "relu"), [-1, -1])
    stage.parameters.value("0.weight")[:] = [[1, 0, 0], [0, 1, 0]]
    stage.begin_step(2)
    for j, x in enumerate(([5, 0, 0], [0, 0, 0])):
        stage.forward(j, np.repeat(np.array([x], dtype=np.float32).T, _COLUMNS // 2, axis=1), _AT, look=True)
    assert stage.living.report() == (DeadUnits("1 (relu)", 1, 2, _COLUMNS),)
    assert stage.living.report() == (), "each column is reported once"


def test_few_columns_are_kept_for_the_next_report() -> None:
    stage = _with_bias(_stage({"linear": {"units": 2}}, "relu"), [-1, -1])
    for _ in range(2):
        stage.begin_step(1)
        stage.forward(0, np.zeros((3, _COLUMNS - 1), dtype=np.float32), _AT, look=True)
        stage.backward(0, np.ones((2, _COLUMNS - 1), dtype=np.float32))
    assert stage.living.report() == (DeadUnits("1 (relu)", 2, 2, 2 * _COLUMNS - 2),)


@pytest.mark.parametrize("recompute", [False, True])
def test_looking_changes_no_bit(recompute: bool) -> None:
    layers = ({"linear": {"units": 16}}, "relu", {"dropout": {"rate": 0.5}}, {"linear": {"units": 8}}, "tanh")
    x = np.random.default_rng(1).normal(size=(3, 40)).astype(np.float32)
    found = []
    for look in (False, True):
        stage = _stage(*layers, recompute=recompute)
        stage.begin_step(1)
        y = stage.forward(0, x, _AT, look=look).copy()
        stage.backward(0, y)
        stage.update(1, 0.1)
        found.append((y.tobytes(), stage.parameters.values.tobytes()))
    assert found[0] == found[1]
