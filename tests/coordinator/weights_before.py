"""Small trainings of every kind of flat job, to keep their weights: `python -m tests.coordinator.weights_before FILE`.

The kept file was written before layers became operations over numbered values. It must not be written again.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from coordinator.job.spec import parse_job
from coordinator.plan.blueprint import make_blueprint
from coordinator.train.local import LocalWorkers
from coordinator.train.trainer import Trainer
from coordinator.train.workers import gather
from stages.arrays import Array
from stages.data import Dataset

_LINEAR = [{"linear": {"units": units}} for units in (7, 6, 5, 4, 3)]
JOBS: dict[str, dict[str, Any]] = {
    "relu and gelu": {
        "layers": ["flatten", _LINEAR[0], "relu", _LINEAR[1], "gelu", {"linear": {"units": 5, "bias": False}},
                   {"gelu": {"approximate": "tanh"}}, _LINEAR[4]],
        "loss": "cross_entropy",
        "sgd": {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01},
        "pipeline": {"stages": 3, "schedule": "1f1b", "weight_grad_group": 2},
    },
    "all activations": {
        "layers": ["tanh", _LINEAR[0], {"leaky_relu": {"slope": 0.1}}, _LINEAR[1], "sigmoid", "flatten", _LINEAR[2],
                   "tanh", _LINEAR[4]],
        "loss": "mse",
        "sgd": {"learning_rate": 0.2, "momentum": 0.8, "nesterov": True},
        "pipeline": {"stages": 4, "schedule": "zb-h1"},
        "clip_norm": 0.5,
    },
    "two stages a worker": {
        "layers": [_LINEAR[0], "relu", "relu", _LINEAR[3], "sigmoid", _LINEAR[4]],
        "loss": "sum_of_squares",
        "sgd": {"learning_rate": 0.01},
        "pipeline": {"stages": 4, "workers": 2, "schedule": "interleaved-1f1b"},
    },
}  # fmt: skip


def train(name: str, precision: str) -> Mapping[str, Array]:
    """Return the parameters of a job after two epochs of five steps."""
    job, rng = JOBS[name], np.random.default_rng(11)
    x = rng.normal(size=(26, 6)).astype(precision)
    y = rng.integers(0, 3, size=26) if job["loss"] == "cross_entropy" else rng.normal(size=(26, 3)).astype(precision)
    training = {"epochs": 2, "batch_size": 6, "micro_batches": 4, "optimizer": {"sgd": job["sgd"]}}
    spec = parse_job(
        {
            "seed": 9,
            "precision": precision,
            "model": {"input": [2, 3] if "flatten" in job["layers"][:1] else [6], "layers": job["layers"],
                      "loss": job["loss"]},
            "data": {"source": "digits"},
            "training": {**training, "clip_norm": job.get("clip_norm")},
            "pipeline": job["pipeline"],
        }
    )  # fmt: skip
    data = Dataset(x=x, y=y)
    blueprint = make_blueprint(spec, len(data))
    with contextlib.closing(LocalWorkers(blueprint, train=data)) as workers:
        list(Trainer(blueprint, workers, train_rows=len(data), validation_rows=0).rows())
        return gather(workers, "parameters")


if __name__ == "__main__":
    np.savez_compressed(
        sys.argv[1],
        allow_pickle=False,
        **{
            f"{job}|{precision}|{name}": value
            for job in JOBS
            for precision in ("float32", "float64")
            for name, value in train(job, precision).items()
        },
    )
