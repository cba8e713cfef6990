"""The base of optimizers: state in named flat vectors, and an update in place, block by block.

[Note: explicit state] An optimizer has no state besides its vectors: an update depends only on them, on the gradient
and on the number of the update. So a run can continue from the vectors alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from stages.arrays import Array, aligned_empty

BLOCK = 32_768  # elements: a few blocks of float32 fit into the second-level cache


class Part(NamedTuple):
    """Elements `start` … `stop` − 1 of the flat vectors, and whether weight decay applies to them."""

    start: int
    stop: int
    decays: bool


class Optimizer(ABC):
    """Updates `values` from `gradients`, flat vectors of one stage. `state` has the optimizer's own vectors by name."""

    n_scratch: ClassVar[int] = 1

    def __init__(self, values: Array, gradients: Array, parts: Sequence[Part], state: Sequence[str]) -> None:
        self._values, self._gradients, self._parts = values, gradients, tuple(parts)
        self.state = {name: aligned_empty(values.shape, values.dtype) for name in state}
        for vector in self.state.values():
            vector[:] = 0
        self._scratch = aligned_empty((self.n_scratch, min(BLOCK, max(1, len(values)))), values.dtype)

    def update(self, step: int, learning_rate: float, scale: float = 1.0) -> None:
        """Apply update number `step`, from 1. `scale` multiplies the gradients (clipping), which are overwritten."""
        for part in self._parts:
            for start in range(part.start, part.stop, BLOCK):
                block = slice(start, min(start + BLOCK, part.stop))
                if scale != 1.0:
                    gradient = self._gradients[block]
                    np.multiply(gradient, float(scale), out=gradient)
                self._update(block, step, float(learning_rate), decays=part.decays)

    @property
    def nbytes(self) -> int:
        """Bytes of the state vectors."""
        return sum(vector.nbytes for vector in self.state.values())

    @abstractmethod
    def _update(self, block: slice, step: int, learning_rate: float, *, decays: bool) -> None:
        """Update one block, see `update`."""
