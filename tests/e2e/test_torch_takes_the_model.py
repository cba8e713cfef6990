from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from cluster.run.saved_model import open_run
from coordinator.train.inference import infer
from tests.jobs import EXAMPLES, pipetrain

pytest.importorskip("torch", reason="torch is not installed; it comes with the extra `benchmark`")


def test_sequential_loads_the_weights_unchanged_and_gives_the_same_outputs(tmp_path: Path) -> None:
    import torch
    from torch import nn

    layers = (
        "[flatten, linear: {units: 16}, gelu, linear: {units: 12, bias: false}, tanh, linear: {units: 12},"
        " gelu: {approximate: tanh}, linear: {units: 10}, leaky_relu]"
    )
    done = pipetrain(
        "train", EXAMPLES / "digits.yaml", "--local", "--run-dir", tmp_path / "run", "--stages", "3",
        "--set", f"model.layers={layers}", "--set", "training.epochs=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    net: Any = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.GELU(), nn.Linear(16, 12, bias=False), nn.Tanh(),
        nn.Linear(12, 12), nn.GELU(approximate="tanh"), nn.Linear(12, 10), nn.LeakyReLU(),
    )  # fmt: skip
    weights = load_file(tmp_path / "run" / "model.safetensors")
    net.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    x = np.random.default_rng(0).uniform(size=(50, 64)).astype(np.float32)
    run = open_run(tmp_path / "run")
    (ours,) = infer(run.spec.model_spec(), run.parameter, x, 50)
    np.testing.assert_allclose(ours.T, net(torch.from_numpy(x)).detach().numpy(), rtol=1e-5, atol=1e-5)
