"""The random streams of parameters, so that anyone can reproduce a run from outside."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import numpy as np

from stages.arrays import Array
from stages.spec import RELU_LIKE, ModelSpec


def draw_weight(model: ModelSpec, layer: int) -> Array:
    """Weight of the linear layer with global index `layer`: shape (out, in), in the model's precision.

    Normal with standard deviation sqrt(2 / fan_in) before a ReLU-like activation (He et al. 2015, eq. 10), else
    sqrt(1 / fan_in); drawn as float64 from `default_rng([seed, 0, layer])`, then cast. Biases start at zero.
    """
    sizes = model.features()
    fan_out, fan_in = sizes[layer + 1], sizes[layer]
    following = (spec.kind for spec in islice(model.layers, layer + 1, None) if spec.kind != "flatten")
    gain = 2.0 if next(following, None) in RELU_LIKE else 1.0
    stream = np.random.default_rng([model.seed, 0, layer])
    weight = stream.normal(0.0, math.sqrt(gain / fan_in), size=(fan_out, fan_in))
    return weight.astype(dtype_of(model), copy=False)


def dtype_of(model: ModelSpec) -> np.dtype[Any]:
    """The NumPy dtype of the model's precision."""
    return np.dtype(model.precision)
