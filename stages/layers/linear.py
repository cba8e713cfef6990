"""The linear layer f = β + Ωh, its two backward products, and the accumulation that BLAS does itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import blas

from stages.arrays import Array
from stages.layers.base import Layer

_GEMM: dict[str, Callable[..., Any]] = {"float32": blas.sgemm, "float64": blas.dgemm}


class Linear(Layer):
    """f = β + Ωh with Ω `weight` (out, in) and β `bias` (out,), or no bias.

    `weight`, `bias` and the gradients `d_weight`, `d_bias` are views that the stage's parameter vectors own.
    """

    elementwise = False

    def __init__(self, index: int, weight: Array, bias: Array | None, d_weight: Array, d_bias: Array | None) -> None:
        self.index = index
        self.n_out, self.n_in = weight.shape
        self.weight, self.bias = weight, bias
        self.d_weight, self.d_bias = d_weight, d_bias
        self._weight_T = weight.T
        self._d_weight_T = d_weight.T
        self._bias_column = None if bias is None else bias[:, None]
        self._gemm = _GEMM[weight.dtype.name]
        self._ones: dict[int, Array] = {}

    def forward(self, x: Array, out: Array) -> None:
        """See Layer.forward."""
        np.matmul(self.weight, x, out=out)
        if self._bias_column is not None:
            np.add(out, self._bias_column, out=out)

    def backward_input(self, x: Array, y: Array, dy: Array, out: Array) -> None:
        """∂ℓ/∂h = Ωᵀ ∂ℓ/∂f."""
        np.matmul(self._weight_T, dy, out=out)

    def backward_weight(self, x: Array, dy: Array, *, accumulate: bool) -> None:
        """∂ℓ/∂Ω = ∂ℓ/∂f hᵀ and ∂ℓ/∂β = the sum of ∂ℓ/∂f over rows, set or (`accumulate`) added.

        `x` (in, rows) and `dy` (out, rows) may hold the rows of several micro-batches. The addition happens inside
        the product: BLAS computes C ← AB + βC, here on the transposes, whose memory is Fortran's.
        """
        result = self._gemm(
            1.0, x.T, dy.T, trans_a=1, beta=1.0 if accumulate else 0.0, c=self._d_weight_T, overwrite_c=1
        )
        assert result is self._d_weight_T, "BLAS worked on a copy: the gradient's memory is not Fortran-ordered"
        if self.d_bias is not None:
            summed = np.matmul(dy, self._column_of_ones(dy.shape[1]))
            if accumulate:
                np.add(self.d_bias, summed, out=self.d_bias)
            else:
                np.copyto(self.d_bias, summed)

    def _column_of_ones(self, rows: int) -> Array:
        ones = self._ones.get(rows)
        if ones is None:
            ones = self._ones[rows] = np.ones(rows, dtype=self.weight.dtype)
        return ones
