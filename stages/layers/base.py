"""What every layer can do, and what a stage needs to know of it to keep the right arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod

from stages.arrays import Array


class Layer(ABC):
    """One entry of the model. Arrays are (features, rows): one sample a column.

    `elementwise` means that both directions may write over the array they read. Which arrays backward reads, and so
    which are kept, stands in `stages.layout`.
    """

    index: int
    n_in: int
    n_out: int
    elementwise: bool

    @abstractmethod
    def forward(self, x: Array, out: Array) -> None:
        """Write the layer's output for `x` (n_in, rows) into `out` (n_out, rows)."""

    @abstractmethod
    def backward_input(self, x: Array, y: Array, dy: Array, out: Array) -> None:
        """Write ∂ℓ/∂x (n_in, rows) into `out`, from ∂ℓ/∂y `dy` (n_out, rows) and what forward kept.

        `x` and `y` are meaningful only where the layout keeps them.
        """
