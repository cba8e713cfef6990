"""What a network's outputs mean: predicted classes with their probabilities, or numbers in the target's own unit.

Each row of the input has one row of answers, in the same order. A row that has none, because its empty cells cannot be
filled, has empty cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.data.tables.preprocessing import Preprocessing
from cluster.run.evaluation import class_names
from stages.layers.activations import sigmoid
from stages.losses import Loss

PREDICTION, PROBABILITY = "prediction", "probability"
AnyArray = NDArray[Any]


class Answers:
    """The columns of answers for the outputs (rows, outputs) of a network."""

    def __init__(self, loss: Loss, outputs: int, rules: Preprocessing | None) -> None:
        self._loss, self._rules = loss, rules
        self._several = not loss.takes_labels and outputs > 1
        self._names = self._target_names(outputs)
        self.classes: tuple[str, ...] | None = class_names(rules, outputs) if loss.takes_labels else None
        """The names of the classes, if the network chooses one of them."""
        self._numbered = self.classes is not None and all(_is_whole(name) for name in self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in their order: `prediction`, or one for each target; then the probabilities."""
        predictions = tuple(f"{PREDICTION}_{name}" for name in self._names) if self._several else (PREDICTION,)
        return (*predictions, *(f"{PROBABILITY}_{name}" for name in self._probable))

    @property
    def _probable(self) -> tuple[str, ...]:
        """What has a probability: each class, or each target that is true or false."""
        if self.classes is not None:
            return self.classes
        if not self._loss.classifies:
            return ()
        return self._names if self._several else ("1",)

    def columns(self, outputs: AnyArray) -> list[AnyArray]:
        """Return the columns of `names`, each (rows,), for outputs (rows, outputs).

        A predicted class is a whole number if all names of classes are, else a text. Of a loss of several yes-or-no
        targets, a prediction is 1 or 0. Numbers are in the target's own unit, float64.
        """
        if self.classes is not None:
            chosen = outputs.argmax(axis=1)
            names = np.array([int(n) for n in self.classes] if self._numbered else self.classes)
            return [names[chosen], *softmax(outputs).T]
        if self._loss.classifies:
            probabilities = sigmoid(outputs)
            return [*(outputs > 0).astype(np.int64).T, *probabilities.T]
        return [*self.in_unit(outputs).T]

    def in_unit(self, outputs: AnyArray) -> AnyArray:
        """Return outputs (rows, targets) as float64 in the unit of the targets."""
        target = None if self._rules is None else self._rules.target
        values: AnyArray = outputs.astype(np.float64)
        if target is None or len(target.divisors) != values.shape[1]:
            return values
        values *= np.array(target.divisors)
        values += np.array(target.offsets)
        return values

    def _target_names(self, outputs: int) -> tuple[str, ...]:
        if self._rules is not None and len(self._rules.target.names) == outputs:
            return self._rules.target.names
        return tuple(map(str, range(outputs)))


def softmax(outputs: AnyArray) -> AnyArray:
    """Return the probabilities (rows, classes) of outputs of that shape; each row sums to 1."""
    found: AnyArray = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    found /= found.sum(axis=1, keepdims=True)
    return found


def _is_whole(name: str) -> bool:
    try:
        return str(int(name)) == name
    except ValueError:
        return False
