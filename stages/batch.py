"""The rows of one step, cut into micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.arrays import Array
from stages.data import Dataset
from stages.orders import TrainStep


class Batch:
    """The rows of one step, cut into micro-batches; and the loss as it comes in."""

    def __init__(self, order: TrainStep, rows: Any, cuts: Sequence[int]) -> None:
        self.order, self._rows, self._cuts = order, rows, cuts
        self.losses: dict[int, tuple[float, int | None]] = {}

    def inputs(self, data: Dataset | None, j: int) -> Array:
        """Micro-batch j as the first stage takes it."""
        assert data is not None, "the worker of the first stage has the inputs"
        inputs: Array = data.inputs(self._rows[self._cuts[j] : self._cuts[j + 1]])
        return inputs

    def first(self, j: int) -> int:
        """The place in the step of the first row of micro-batch j."""
        return self._cuts[j]

    def targets(self, data: Dataset, j: int) -> Any:
        """What micro-batch j should give, as the loss takes it."""
        return data.targets(self._rows[self._cuts[j] : self._cuts[j + 1]])

    @property
    def loss_total(self) -> float:
        """Summed in micro-batch order, whatever order the schedule ran."""
        return sum(self.losses[j][0] for j in sorted(self.losses))

    @property
    def correct(self) -> int | None:
        """Right answers of the batch; None where the loss knows none."""
        counts = [correct for _, correct in self.losses.values() if correct is not None]
        return sum(counts) if counts else None
