"""What every layer can do, and what a stage needs to know of it to keep the right arrays."""

from __future__ import annotations

from typing import Protocol

from stages.arrays import Array


class Layer(Protocol):
    """One entry of the model. Arrays are (features, rows): one sample a column.

    `keeps_input` and `keeps_output` say which of its two arrays the backward pass reads. `elementwise` means that
    both directions may write over the array they read.
    """

    index: int
    n_in: int
    n_out: int
    keeps_input: bool
    keeps_output: bool
    elementwise: bool

    def forward(self, x: Array, out: Array) -> None:
        """Write the layer's output for `x` (n_in, rows) into `out` (n_out, rows)."""

    def backward_input(self, x: Array, y: Array, dy: Array, out: Array) -> None:
        """Write ∂ℓ/∂x (n_in, rows) into `out`, from ∂ℓ/∂y `dy` (n_out, rows) and what forward kept.

        `x` is meaningful only if `keeps_input`, `y` only if `keeps_output`.
        """
