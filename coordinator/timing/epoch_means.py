"""The training loss and accuracy that people are shown: means over the rows of the present epoch so far."""

from __future__ import annotations


def loss_per_row(loss: float, samples: int, *, summed: bool) -> float:
    """A row's loss as people are shown it: a sum is divided by its rows, so that batches can be compared."""
    return loss / samples if summed and samples else loss


class EpochMeans:
    """The means. A single step says little: the last batch of an epoch may have few rows."""

    def __init__(self) -> None:
        self._epoch = 0
        self._rows = 0
        self._loss = self._right = 0.0
        self._classifies = False

    def take(self, *, epoch: int, samples: int, loss: float, accuracy: float | None, summed: bool = False) -> None:
        """Take in a step: its columns as in StepRow. A step of another epoch begins anew."""
        if epoch != self._epoch:
            self._epoch, self._rows, self._loss, self._right = epoch, 0, 0.0, 0.0
        self._rows += samples
        self._loss += samples * loss_per_row(loss, samples, summed=summed)
        self._classifies = accuracy is not None
        self._right += samples * (accuracy or 0.0)

    @property
    def loss(self) -> float | None:
        """The mean per row; None before the first step."""
        return self._loss / self._rows if self._rows else None

    @property
    def accuracy(self) -> float | None:
        """The share of rows that were right, 0 to 1; None for a job that is no classifier."""
        return self._right / self._rows if self._rows and self._classifies else None
