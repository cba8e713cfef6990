"""A stage's parameters and gradients: one flat vector each, so that an update is a few long operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from stages.arrays import Array, aligned_empty

Write = Callable[[str, Array], None]
"""Writes the parameter with a given name into an array of its shape."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a parameter lies in the flat vectors."""

    name: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Parameters:
    """Values and gradients of named parameters (`3.weight`), each starting on a cache line of a flat vector.

    The frozen ones, which no update changes, are behind all others: the first `n_trained` numbers are what an optimizer
    updates.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[str, tuple[int, ...]]],
        dtype: np.dtype[Any],
        frozen: frozenset[str] = frozenset(),
    ) -> None:
        line = 64 // dtype.itemsize
        found, position, n_trained = dict[str, Slot](), 0, 0
        for name, shape in sorted(shapes, key=lambda one: one[0] in frozen):  # else they stay in their order
            size = int(np.prod(shape))
            found[name] = Slot(name, shape, position, position + size)
            position += -(-size // line) * line
            n_trained = n_trained if name in frozen else position
        self.slots = tuple(found[name] for name, _ in shapes)
        self.trained = tuple(slot for slot in self.slots if slot.name not in frozen)
        self.n_trained = n_trained
        self.values = aligned_empty((position,), dtype)
        self.gradients = aligned_empty((position,), dtype)
        self.values[:] = 0
        self.gradients[:] = 0
        self._trained_gradients = [(slot.name, self.gradients[slot.start : slot.stop]) for slot in self.trained]

    def value(self, name: str) -> Array:
        """A view of the parameter, in its shape."""
        return self.view(self.values, name)

    def gradient(self, name: str) -> Array:
        """A view of the parameter's gradient, in its shape."""
        return self.view(self.gradients, name)

    def views(self, flat: Array) -> dict[str, Array]:
        """The parts of `flat` (`values`, `gradients`, or a vector of the trained ones) by parameter name, not
        copied."""
        slots = self.slots if len(flat) == len(self.values) else self.trained
        return {slot.name: flat[slot.start : slot.stop].reshape(slot.shape) for slot in slots}

    def named(self, flat: Array) -> dict[str, Array]:
        """Copies of `views`."""
        return {name: view.copy() for name, view in self.views(flat).items()}

    def fill(self, write: Write) -> None:
        """Write the values of every parameter with `write`."""
        for slot in self.slots:
            write(slot.name, self.value(slot.name))

    def squared_norms(self) -> dict[str, float]:
        """Σ g² of the gradient of each trained parameter. NaN or infinite only if the gradient holds such a value."""
        with np.errstate(over="ignore", invalid="ignore"):
            return {
                name: norm if isfinite(norm := float(gradient.dot(gradient))) else _wide_squared_norm(gradient)
                for name, gradient in self._trained_gradients
            }

    def view(self, flat: Array, name: str) -> Array:
        """The part of `flat` that is the parameter's, in its shape, not copied."""
        slot = next(slot for slot in self.slots if slot.name == name)
        return flat[slot.start : slot.stop].reshape(slot.shape)


def _wide_squared_norm(vector: Array) -> float:
    wide = vector.astype(np.float64)  # squares of large float32 values overflow though the values are finite
    return float(wide.dot(wide))
