"""Outputs of a trained network, operation by operation."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from coordinator.job.spec import JobSpec, parse_job
from coordinator.train.inference import infer
from stages.stage import Stage

_CLASSES = 4000


def _job(layers: list[Any]) -> JobSpec:
    return parse_job(
        {
            "model": {"input": [8], "layers": layers, "loss": "mse"},
            "data": {"source": "diabetes"},
            "training": {"epochs": 1, "batch_size": 8, "optimizer": {"sgd": {"learning_rate": 0.1}}},
        }
    )


@pytest.mark.parametrize("end", [[], ["relu"], [{"residual": ["tanh"]}]])
def test_wide_outputs_are_held_for_one_chunk_at_a_time(end: list[Any]) -> None:
    model = _job([{"linear": {"units": 8}}, "tanh", {"linear": {"units": _CLASSES}}, *end]).model_spec()
    stage = Stage(model, 0, len(model.network.ops), _job([{"linear": {"units": 1}}]).optimizer())
    x = np.random.default_rng(0).normal(size=(800, 8)).astype(np.float32)
    weights = stage.parameters.named(stage.parameters.values)
    tracemalloc.start()
    try:
        rows = 0
        for y in infer(model, weights.__getitem__, x, 20):
            expected = stage.infer(x[rows : rows + 20].T)
            np.testing.assert_array_equal(y, expected)
            rows += y.shape[1]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows == 800
    assert most < 0.5 * 800 * _CLASSES * 4, "all outputs are held at once"
