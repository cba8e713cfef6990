"""The random streams of parameters, so that anyone can reproduce a run from outside."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import numpy as np

from stages.arrays import Array
from stages.spec import RELU_LIKE, ModelSpec

_BLOCK = 65_536  # numbers drawn at a time


def draw_weight(model: ModelSpec, layer: int, out: Array) -> None:
    """Write the weight of the linear layer with global index `layer` into `out` (out, in), of the model's precision.

    Normal with standard deviation sqrt(2 / fan_in) before a ReLU-like activation (He et al. 2015, eq. 10), else
    sqrt(1 / fan_in); drawn as float64 from `default_rng([seed, 0, layer])`, then cast. Biases start at zero.
    """
    sizes = model.features()
    fan_out, fan_in = sizes[layer + 1], sizes[layer]
    following = (spec.kind for spec in islice(model.layers, layer + 1, None) if spec.kind != "flatten")
    gain = 2.0 if next(following, None) in RELU_LIKE else 1.0
    stream = np.random.default_rng([model.seed, 0, layer])
    rows = max(1, _BLOCK // fan_in)
    for a in range(0, fan_out, rows):  # in blocks, the same stream: the whole in float64 would be twice the weight
        part = out[a : a + rows]
        part[...] = stream.normal(0.0, math.sqrt(gain / fan_in), size=part.shape)


def dtype_of(model: ModelSpec) -> np.dtype[Any]:
    """The NumPy dtype of the model's precision."""
    return np.dtype(model.precision)
