"""What a loss is: a function of the network's outputs and of what they should be, with its gradient.

A micro-batch's gradient is divided by the *whole batch's* count, so that micro-batches of any size add up to the batch.
Losses are returned as sums in float64; who knows the count divides.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from stages.arrays import Array

Targets = NDArray[Any]
"""Labels (columns,) of whole numbers if the loss `takes_labels`; else (outputs, columns) in the model's precision."""


@dataclass(frozen=True, slots=True)
class LossResult:
    """`total`: Σ of the loss over columns (and outputs). `correct`: how many of those that are counted are right, None
    if the loss knows no right and wrong. `gradient`: ∂ℓ/∂f, shape (outputs, columns)."""

    total: float
    correct: int | None
    gradient: Array


class Loss(ABC):
    """One loss, with its options."""

    takes_labels: ClassVar[bool] = False
    """A target is the number of a class, from 0 to outputs − 1, or a token."""
    least_outputs: ClassVar[int] = 1
    classifies: ClassVar[bool] = False
    """Whether an output is right or wrong."""
    is_sum: ClassVar[bool] = False
    """The loss of a batch is a sum over its rows, and so grows with their number."""
    targets_between: ClassVar[tuple[float, float] | None] = None
    ignore_index: int | None = None
    """The label of targets that do not count: neither in the loss, nor in what it is divided by."""

    @property
    def is_log_likelihood(self) -> bool:
        """Whether the mean is −log of the probability of a target, so that e to its power is a perplexity."""
        return False

    def counted(self, targets: Targets) -> int:
        """How many of these labels count."""
        return targets.size - int((targets == self.ignore_index).sum())

    @abstractmethod
    def count(self, columns: int, outputs: int) -> int:
        """What the summed loss of so many columns, all of which count, is divided by: as torch's defaults have it."""

    @abstractmethod
    def evaluate(self, f: Array, targets: Targets, count: int) -> LossResult:
        """Loss and gradient of outputs `f` (outputs, columns), which may be written over; the gradient is divided by
        `count`, that of the whole batch, or by 1 if nothing counts."""


@dataclass(frozen=True, slots=True)
class LossSpec:
    """`model.loss`: its kind and an object of that kind's options class."""

    kind: str
    options: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LossKind:
    """A kind of loss as a job file names it; `options` is the dataclass of what can be set."""

    name: str
    options: type
    build: Callable[[Any], Loss]


def mean(total: float, count: int) -> float:
    """A summed loss, divided; 0 if nothing counts."""
    return total / max(1, count)
