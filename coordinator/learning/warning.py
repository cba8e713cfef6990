"""A warning that a network may learn nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

CODES = {
    "unscaled_inputs": "columns of very different sizes",
    "inputs_far_from_one": "all inputs are very large or very small",
    "constant_columns": "input columns that have the same value in every row",
    "one_class": "all training rows have the same label",
    "unbalanced_classes": "almost all training rows have the same label",
    "constant_target": "a target that has the same value in every row",
    "row_numbers": "the target numbers the rows",
    "many_classes": "too few rows for so many classes",
    "unseen_classes": "validation rows of classes that no training row has",
    "repeated_rows": "validation rows that are training rows too",
    "loss_of_constant": "the loss is that of always giving the same answer",
    "overfitting": "the validation loss rises while the training loss falls",
    "dead_units": "units that pass no gradient for any row",
    "exploding_gradients": "the gradient norm has grown by orders of magnitude",
    "vanishing_gradients": "the first layers get almost no gradient",
    "loss_jump": "the loss has jumped by orders of magnitude",
}
"""The code of every warning, and what it means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningWarning:
    """A warning with one of CODES. `text` says what is the case, with its figures, and what to try; `figures` are
    numbers and names for programs, fit for JSON: a number that is not finite becomes None."""

    code: str
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.code in CODES, f"{self.code} is no code of a warning"
        wrong = {key: None for key, value in self.figures.items() if isinstance(value, float) and not isfinite(value)}
        object.__setattr__(self, "figures", {**self.figures, **wrong})
