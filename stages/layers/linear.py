"""The linear layer f = β + Ωh, its two backward products, and the accumulation that BLAS does itself."""

from __future__ import annotations

import numpy as np

from stages.arrays import Array
from stages.layers.base import Layer
from stages.products import add_product, multiply


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
        self._bias_column = None if bias is None else bias[:, None]
        self._ones: dict[int, Array] = {}

    def forward(self, x: Array, out: Array) -> None:
        """See Layer.forward."""
        multiply(self.weight, x, out)
        if self._bias_column is not None:
            np.add(out, self._bias_column, out=out)

    def backward_input(self, x: Array, y: Array, dy: Array, out: Array) -> None:
        """∂ℓ/∂h = Ωᵀ ∂ℓ/∂f."""
        multiply(self._weight_T, dy, out)

    def backward_weight(self, x: Array, dy: Array, *, accumulate: bool) -> None:
        """∂ℓ/∂Ω = ∂ℓ/∂f hᵀ and ∂ℓ/∂β = the sum of ∂ℓ/∂f over rows, set or (`accumulate`) added.

        `x` (in, rows) and `dy` (out, rows) may hold the rows of several micro-batches. The addition happens inside
        the product.
        """
        add_product(dy, x.T, self.d_weight, accumulate=accumulate)
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
