"""Finds dead units: those whose output passes no gradient for any row, so that the weights below them learn nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from stages.arrays import Array
from stages.network import Op, described

ENOUGH_COLUMNS = 64
"""Fewer columns of an output say little: a unit that lives may be silent for them all."""


class DeadUnits(NamedTuple):
    """`dead` of a layer's `units` passed no gradient for any of the last `columns` columns that were looked at.
    `layer` is its name for people: `1 (relu)`."""

    layer: str
    dead: int
    units: int
    columns: int


class LivingUnits:
    """The units of a stage that passed a gradient since the last report. It only reads outputs, so that it changes no
    bit of the training."""

    def __init__(self, ops: Sequence[Op]) -> None:
        self._ops = {op.index: op for op in ops if op.layer.can_die and op.layer.shape_out.features}
        self._living = {index: np.zeros(op.layer.shape_out.features, bool) for index, op in self._ops.items()}
        self._columns = dict.fromkeys(self._ops, 0)

    def looking(self, op: Op | None, forward: Callable[..., None]) -> Callable[..., None]:
        """Return a forward pass of the operation that also looks at its output."""
        if op is None or op.index not in self._ops:
            return forward
        layer, living, index = op.layer, self._living[op.index], op.index

        def forward_and_look(x: Array, y: Array, *rest: Any) -> None:
            forward(x, y, *rest)
            np.logical_or(living, layer.living_units(y), out=living)
            self._columns[index] += y.shape[1]

        return forward_and_look

    def forget(self) -> None:
        """Begin anew, without a report."""
        for index, living in self._living.items():
            living[:] = False
            self._columns[index] = 0

    def report(self) -> tuple[DeadUnits, ...]:
        """Report each layer of which enough columns were looked at, and begin with it anew."""
        found = []
        for index, op in self._ops.items():
            living, columns = self._living[index], self._columns[index]
            if columns < ENOUGH_COLUMNS:
                continue
            name = f"{op.name} ({described(op.path, op.inside, op.kind)})"
            found.append(DeadUnits(name, int(np.count_nonzero(~living)), len(living), columns))
            living[:] = False
            self._columns[index] = 0
        return tuple(found)
