"""The rows of one step, cut into micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import isfinite
from typing import Any

from stages.arrays import Array
from stages.data import Dataset
from stages.errors import NonFinite
from stages.losses import Loss
from stages.network import Network
from stages.orders import TrainStep


class Batch:
    """The rows of one step, cut into micro-batches of `sizes` rows, and the losses computed so far."""

    def __init__(self, order: TrainStep, rows: Any, sizes: Sequence[int]) -> None:
        self.order, self._rows, self._cuts = order, rows, list(accumulate(sizes, initial=0))
        self.when = f"step {order.step}"
        self.losses: dict[int, tuple[float, int | None]] = {}
        self.divisor: int | None = None
        """The divisor of the summed loss; set before the first micro-batch's gradient."""

    def inputs(self, data: Dataset | None, j: int) -> Array:
        """Return the inputs of micro-batch j in the layout of the first stage, see Dataset.inputs."""
        assert data is not None, "the worker of the first stage has the inputs"
        inputs: Array = data.inputs(self._rows[self._cuts[j] : self._cuts[j + 1]])
        return inputs

    def first(self, j: int) -> int:
        """Return the index of the first row of micro-batch j among the rows of the step."""
        return self._cuts[j]

    def take_loss(self, loss: Loss, network: Network, data: Dataset | None, j: int, f: Array) -> Array:
        """Compute the loss of micro-batch j from the network's output `f`, and return ∂ℓ/∂f. Raises NonFinite."""
        assert data is not None, "the worker of the last stage has the targets"
        if self.divisor is None:
            self.divisor = self._divisor(loss, data, network.output.columns, network.output.features)
        targets = data.targets(self._rows[self._cuts[j] : self._cuts[j + 1]])
        total, correct, gradient = loss.evaluate(f, targets, self.divisor)
        if not isfinite(total):
            raise NonFinite(
                f"the loss became {total} in {self.when}, micro-batch {j}, "
                "though every layer's output is finite; try a lower learning rate"
            )
        self.losses[j] = total, correct
        return gradient

    def _divisor(self, loss: Loss, data: Dataset, columns_of_a_row: int, outputs: int) -> int:
        """Return the divisor of the batch's summed loss, which counts all its rows, however it is cut."""
        rows = self.order.last - self.order.first
        columns = rows * columns_of_a_row
        if loss.ignore_index is not None:
            columns = loss.n_counted(data.targets(self._rows))
        return loss.count(columns, outputs)

    @property
    def loss_total(self) -> float:
        """The sum of the micro-batches' losses, always added in ascending order, whatever the schedule."""
        return sum(self.losses[j][0] for j in sorted(self.losses))

    @property
    def correct(self) -> int | None:
        """The number of correct answers in the batch; None if the loss does not count them."""
        counts = [correct for _, correct in self.losses.values() if correct is not None]
        return sum(counts) if counts else None
