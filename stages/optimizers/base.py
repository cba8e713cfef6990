"""The base of optimizers: state in named flat vectors, and an update in place, block by block.

[Note: explicit state] An optimizer has no state besides its vectors: an update depends only on them, on the gradient
and on the number of the update. So a run can continue from the vectors alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from stages.arrays import Array, aligned_empty

BLOCK = 65_536  # elements: a few blocks of float32 stay in the cache that the next pass reads


class Part(NamedTuple):
    """Elements `start` … `stop` − 1 of the flat vectors, and whether weight decay applies to them."""

    start: int
    stop: int
    decays: bool


class Optimizer(ABC):
    """Updates `values` from `gradients`, flat vectors of one stage. `state` has the optimizer's own vectors by name."""

    n_scratch: ClassVar[int] = 1

    def __init__(self, values: Array, gradients: Array, parts: Sequence[Part], state: Sequence[str]) -> None:
        self._values, self._gradients = values, gradients
        self._blocks = tuple(_blocks(len(values), parts))
        self.state = {name: aligned_empty(values.shape, values.dtype) for name in state}
        for vector in self.state.values():
            vector[:] = 0
        self._scratch = aligned_empty((self.n_scratch, min(BLOCK, max(1, len(values)))), values.dtype)

    def update(self, step: int, learning_rate: float, scale: float = 1.0) -> None:
        """Apply update number `step`, from 1. `scale` multiplies the gradients (clipping), which are overwritten."""
        for block, decaying in self._blocks:
            if scale != 1.0:
                gradient = self._gradients[block]
                np.multiply(gradient, float(scale), out=gradient)
            self._update(block, step, float(learning_rate), decaying)

    def _shrink(self, decaying: Sequence[slice], factor: float) -> None:
        """Decoupled weight decay."""
        for piece in decaying:
            value = self._values[piece]
            np.multiply(value, factor, out=value)

    def _add_values(self, decaying: Sequence[slice], weight_decay: float) -> None:
        """Weight decay as a part of the gradient."""
        for piece in decaying:
            gradient, product = self._gradients[piece], self._scratch[0, : piece.stop - piece.start]
            np.multiply(self._values[piece], weight_decay, out=product)
            np.add(gradient, product, out=gradient)

    @property
    def nbytes(self) -> int:
        """Bytes of the state vectors."""
        return sum(vector.nbytes for vector in self.state.values())

    @abstractmethod
    def _update(self, block: slice, step: int, learning_rate: float, decaying: Sequence[slice]) -> None:
        """Update one block, see `update`. Weight decay applies to the elements `decaying` of the flat vectors only."""


def _blocks(n: int, parts: Sequence[Part]) -> Iterator[tuple[slice, tuple[slice, ...]]]:
    """Yield blocks of `n` elements, each with those of its elements that decay. A block may hold many small parts: a
    call for each vector of a norm would take longer than its update."""
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        within = (slice(max(start, part.start), min(stop, part.stop)) for part in parts if part.decays)
        yield slice(start, stop), tuple(piece for piece in within if piece.start < piece.stop)
