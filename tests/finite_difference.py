"""Finite differences, for every test of derivatives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stages.arrays import Array


def numerical_gradient(function: Callable[[], float], array: Array, step: float = 1e-6) -> Array:
    """∂ function / ∂ array by central differences; `array` is changed in place and restored. float64 only."""
    assert array.dtype == np.float64
    gradient = np.empty_like(array)
    for place in np.ndindex(array.shape):
        kept = array[place]
        array[place] = kept + step
        above = function()
        array[place] = kept - step
        below = function()
        array[place] = kept
        gradient[place] = (above - below) / (2 * step)
    return gradient
