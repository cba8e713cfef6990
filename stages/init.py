"""Initial values of parameters, from random streams that anyone can reproduce without pipetrain.

[Note: drawn parameters] The parameters of the layer with path p (its place in the nested job file; `(k,)` in a flat
one) are drawn from `default_rng([seed, 0, *p])`, in the layer's own order, in float64, row by row, then cast.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.arrays import Array
from stages.spec import ModelSpec

_BLOCK = 65_536  # numbers drawn at a time


def draw_parameter(stream: np.random.Generator, out: Array, std: float | None, constant: float) -> None:
    """Write a parameter into `out`: normal with mean 0 and standard deviation `std`, or `constant` if that is None.

    Draws in blocks, all from the same stream: at once, the float64 numbers would take twice the memory of a float32
    parameter.
    """
    if std is None:
        out[...] = constant
        return
    rows = max(1, _BLOCK // max(1, out[0].size))
    for a in range(0, len(out), rows):
        part = out[a : a + rows]
        part[...] = stream.normal(0.0, std, size=part.shape)


def dtype_of(model: ModelSpec) -> np.dtype[Any]:
    """The NumPy dtype of the model's precision."""
    return np.dtype(model.precision)
