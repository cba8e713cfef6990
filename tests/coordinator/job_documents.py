"""Job documents for several tests: the smallest right one, and one with every entry."""

from __future__ import annotations

import copy
from typing import Any

SMALLEST: dict[str, Any] = {
    "model": {"input": [64], "layers": [{"linear": {"units": 10}}], "loss": "cross_entropy"},
    "data": {"source": "digits"},
    "training": {"epochs": 3, "batch_size": 32, "optimizer": {"sgd": {"learning_rate": 0.1}}},
}
LARGEST: dict[str, Any] = {
    "name": "all-of-it",
    "seed": 7,
    "precision": "float64",
    "model": {
        "input": [8, 8],
        "layers": [
            "flatten",
            {"linear": {"units": 16, "bias": False}},
            {"leaky_relu": {"slope": 0.2}},
            {"linear": {"units": 8}},
            "tanh",
            "sigmoid",
            {"gelu": {"approximate": "tanh"}},
            {"linear": {"units": 1}},
        ],
        "loss": "mse",
    },
    "data": {"source": "file:///d/a.csv", "target": ["price"], "validation": "s3://b/c.parquet"},
    "training": {
        "epochs": 3,
        "batch_size": 32,
        "micro_batches": 4,
        "evaluate_batch_size": 7,
        "optimizer": {"sgd": {"learning_rate": 1, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": True}},
        "clip_norm": 1.0,
    },
    "pipeline": {
        "stages": 4,
        "workers": 2,
        "schedule": "/p/mine.csv",
        "partition": [2, 1, 2, 3],
        "weight_grad_group": 2,
    },
    "resources": {"cpus_per_worker": 2, "memory_per_worker": "1.5GiB", "hang_timeout": 5},
}


def changed(path: str, value: object, base: dict[str, Any] = SMALLEST) -> dict[str, Any]:
    """Return the document with one entry set. `path` has dots between its parts; numbers are indices."""
    document = copy.deepcopy(base)
    here: Any = document
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        here = here.setdefault(part, {}) if isinstance(here, dict) else here[part]
    here[last] = value
    return document
