"""What the warnings about data look at. `cluster.data.measure` measures it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFacts:
    """The columns of inputs that are numbers, as the network gets them, in `rows` training rows.

    `sizes` has each column's root mean square, `constant` whether all its values are equal. `names` are those of a
    table's columns, None for arrays without names. `normalised`: the first layer ignores the scale of a row.
    """

    rows: int
    sizes: Sequence[float]
    constant: Sequence[bool]
    names: Sequence[str] | None = None
    normalised: bool = False

    def name(self, column: int) -> str:
        """The column's name, or its place in the array: `x[:, 3]`."""
        return f"x[:, {column}]" if self.names is None else self.names[column]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFacts:
    """How many rows of each class there are: `train[k]` and `validation[k]` for class k. `names` are the classes'
    names, None if they are numbers only. Labels that the loss ignores do not count."""

    train: Sequence[int]
    validation: Sequence[int]
    names: Sequence[str] | None = None

    def name(self, label: int) -> str:
        """The name of a class."""
        return str(label) if self.names is None else self.names[label]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFacts:
    """Targets that are numbers. `constant` has the names of those with the same value in every training row, with that
    value. `numbering`: the first and the last number if the only target has each whole number between them once."""

    constant: Sequence[tuple[str, float]] = ()
    numbering: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """The facts of a job's data. What was not measured is None.

    `repeated` counts the validation rows whose inputs and target a training row has too, `repeated_train` the training
    rows that an earlier one equals. `constant_loss`: the least loss per row of a network that always gives the same
    output.
    """

    train_rows: int
    validation_rows: int
    inputs: InputFacts | None = None
    labels: LabelFacts | None = None
    targets: TargetFacts | None = None
    repeated: int | None = None
    repeated_train: int | None = None
    constant_loss: float | None = None
