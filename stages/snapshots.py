"""The port for checkpoints: a worker hands over the state of its layers, and something else writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from stages.arrays import Array

LayerState = Mapping[str, Array]
"""The arrays of one layer by name: `4.1.weight`, and `4.1.weight.exp_avg` for a vector of the optimizer."""


Read = Callable[[str, str, Array], None]
"""Writes an array of a saved state into another one: `read(layer, name, out)`."""


class WrittenFile(NamedTuple):
    """A file of a checkpoint. `crc32` is of its bytes; `tensors` has the type and the shape of each array by name."""

    layer: str
    name: str
    n_bytes: int
    crc32: int
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]


class Written(NamedTuple):
    """What became of a worker's part of the checkpoint of step `step`. `error` says why it is not whole; an empty text
    if it is."""

    step: int
    files: tuple[WrittenFile, ...] = ()
    error: str = ""
    seconds: float = 0.0


class Snapshots(Protocol):
    """Keeps consistent copies of a worker's state."""

    def take(self, step: int, layers: Mapping[str, LayerState], *, copy: bool) -> None:
        """With `copy`, copy the arrays and begin to write the copy; else write them. The arrays may change after the
        call. Raises nothing: errors are in the result of `look`."""

    def look(self, *, wait: bool) -> Written | None:
        """Return the outcome of the last `take`, once; None if there is none yet. `wait`: until there is one."""
