"""The base of losses: functions of the network's outputs and their targets, with gradients.

A micro-batch's gradient is divided by the *whole batch's* count, so that micro-batches of any size add up to the batch.
Losses are returned as sums in float64; the caller, which knows the count, divides.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.arrays import Array

Targets = NDArray[Any]
"""Labels (columns,), integers, if the loss `takes_labels`; else (outputs, columns) in the model's precision."""


class LossResult(NamedTuple):
    """`total`: Σ of the loss over columns (and outputs). `correct`: how many of the counted targets are predicted
    right, None if the loss does not classify. `gradient`: ∂ℓ/∂f, shape (outputs, columns)."""

    total: float
    correct: int | None
    gradient: Array


class Loss(ABC):
    """One loss, with its options."""

    takes_labels: ClassVar[bool] = False
    """Whether a target is the number of a class, from 0 to outputs − 1, or a token."""
    least_outputs: ClassVar[int] = 1
    classifies: ClassVar[bool] = False
    """Whether outputs can be right or wrong."""
    is_sum: ClassVar[bool] = False
    """Whether the loss of a batch is a sum over its rows, and so grows with their number."""
    targets_between: ClassVar[tuple[float, float] | None] = None
    ignore_index: int | None = None
    """The label of targets that do not count, neither in the loss nor in its divisor."""

    @property
    def is_log_likelihood(self) -> bool:
        """Whether the mean is −log of the probability of a target, so that e to its power is a perplexity."""
        return False

    def n_counted(self, targets: Targets) -> int:
        """Return the number of columns whose target counts."""
        ignored = 0 if self.ignore_index is None else int(np.count_nonzero(targets == self.ignore_index))
        return int(targets.shape[-1]) - ignored

    def of_constant(self, targets: Targets, outputs: int) -> float | None:
        """Return the least loss of a network that gives the same output for every column, as a mean over columns (and,
        where the loss is a mean over outputs, over them); None if it is not known or no target counts."""
        return None

    @abstractmethod
    def count(self, columns: int, outputs: int) -> int:
        """Return the divisor of the loss summed over `columns` columns that all count, as in torch's default
        reduction."""

    @abstractmethod
    def evaluate(self, f: Array, targets: Targets, count: int) -> LossResult:
        """Return the loss and the gradient of outputs `f` (outputs, columns), which it may overwrite. The gradient is
        divided by `count`, the divisor of the whole batch, or by 1 if no target of the batch counts."""


@dataclass(frozen=True, slots=True)
class LossSpec:
    """`model.loss`: its kind and an object of that kind's options class."""

    kind: str
    options: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LossKind:
    """A kind of loss that a job file can name; `options` is the dataclass of its options."""

    name: str
    options: type
    build: Callable[[Any], Loss]


def mean(total: float, count: int) -> float:
    """Return the mean of a summed loss; 0 if no target counts."""
    return total / max(1, count)
