"""Checks whether the cells of a table fit the model: tokens, labels of positions, the range of targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cluster.data.tables.cells import Cells, Mask, NumberCells
from cluster.data.tables.preprocessing import InputRule, TargetRule
from cluster.data.tables.problems import Problems
from stages.spec import ModelSpec


def check_tokens(
    cells: Mapping[str, Cells], rules: Sequence[InputRule], model: ModelSpec, used: Mask, problems: Problems
) -> None:
    """Add a problem for each used input that is no token of the model's vocabulary."""
    right = f"a token of the vocabulary, a whole number from 0 to {model.vocabulary - 1}"
    for rule in rules if model.vocabulary else ():
        _check_whole(cells[rule.name], model.vocabulary, None, right, used, problems)


def check_targets(
    cells: Mapping[str, Cells], rule: TargetRule, model: ModelSpec, used: Mask, problems: Problems
) -> None:
    """Add a problem for each used target without classes that the loss cannot take."""
    loss = model.loss_function
    for name in () if rule.classes is not None else rule.names:
        column = cells[name]
        if loss.takes_labels:
            classes = model.network.output.features
            right = f"a whole number from 0 to {classes - 1}, a class's number"
            _check_whole(column, classes, loss.ignore_index, right, used, problems)
        elif loss.targets_between is not None and isinstance(column, NumberCells) and rule.scale == "none":
            least, most = loss.targets_between
            wrong = ((column.all() < least) | (column.all() > most)) & used
            if wrong.any():
                problems.add_cells(name, wrong, column.value, f"from {least:g} to {most:g} for this loss")


def _check_whole(cells: Cells, below: int, ignored: int | None, right: str, used: Mask, problems: Problems) -> None:
    if not isinstance(cells, NumberCells):
        return
    values = cells.all()
    wrong = ~((values >= 0) & (values < below) & (values == np.floor(values))) & used
    if ignored is not None:
        wrong &= values != ignored
    if wrong.any():
        problems.add_cells(cells.name, wrong, cells.value, right)
