"""The training loss and accuracy on pages and in commands: means over the rows of the present epoch so far."""

from __future__ import annotations


def loss_per_row(loss: float, samples: int, *, summed: bool) -> float:
    """Return the loss per row: a sum is divided by its rows, so that batches can be compared."""
    return loss / samples if summed and samples else loss


def weight(samples: int, counted: int | None) -> int:
    """Return the weight of a step in a mean: its rows or, if the loss ignores some targets, the targets that count."""
    return samples if counted is None else counted


class EpochMeans:
    """Means over an epoch so far. A single step says little: the last batch of an epoch may have few rows. The weight
    of a step is the number of its rows or, if the loss ignores some targets, of the targets that count."""

    def __init__(self) -> None:
        self._epoch = 0
        self._weight = 0
        self._loss = self._right = 0.0
        self._classifies = False

    def take(
        self,
        *,
        epoch: int,
        samples: int,
        loss: float,
        accuracy: float | None,
        summed: bool = False,
        counted: int | None = None,
    ) -> None:
        """Take in a step, with its figures as in StepRow. A step of another epoch resets the means."""
        if epoch != self._epoch:
            self._epoch, self._weight, self._loss, self._right = epoch, 0, 0.0, 0.0
        counts = weight(samples, counted)
        self._weight += counts
        self._loss += counts * loss_per_row(loss, samples, summed=summed)
        self._classifies = accuracy is not None
        self._right += counts * (accuracy or 0.0)

    @property
    def loss(self) -> float | None:
        """The mean per row; None before the first step."""
        return self._loss / self._weight if self._weight else None

    @property
    def accuracy(self) -> float | None:
        """The share of rows classified right, 0 to 1; None if the job is no classifier."""
        return self._right / self._weight if self._weight and self._classifies else None
