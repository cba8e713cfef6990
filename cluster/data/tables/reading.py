"""Reads the columns of a table as cells: of a training file by what the job says and by their types, of any other file
by the rules that were fitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cluster.data.files import Table
from cluster.data.tables.cells import (
    CategoryCells,
    Cells,
    NumberCells,
    category_cells,
    has_texts,
    is_date,
    is_number,
    is_numeric,
    is_text,
    number_cells,
    numbers_of_texts,
)
from cluster.data.tables.names import require_columns
from cluster.data.tables.preprocessing import CategoryRule, Preprocessing
from cluster.data.tables.problems import Problems, shown
from cluster.data.tables.roles import Roles
from cluster.data.tables.stored_tables import kept_cells
from coordinator.job.data_section import DataSection
from coordinator.texts import counted
from stages.losses import Loss

MOST_CATEGORIES = 64
"""A column of texts with more different values is a category only if the job says so."""


def training_cells(table: Table, roles: Roles, data: DataSection, loss: Loss, problems: Problems) -> dict[str, Cells]:
    """Take the used columns out of the table, and return their cells. Adds a problem for each column whose meaning is
    not clear, and for each cell that does not fit."""
    found: dict[str, Cells] = {}
    keep = kept_cells(table, len(roles.inputs), problems.source)
    for name in roles.inputs:
        finite, column = name in table.finite, table.columns.pop(name)
        found[name] = keep(_input_cells(name, column, data.column(name).kind, problems, finite=finite))
    for name in roles.target:
        said = data.column(name).kind
        found[name] = _target_cells(name, table.columns.pop(name), said, loss, len(roles.target) == 1, problems)
    if roles.group is not None and roles.group not in found:
        found[roles.group] = _categories(roles.group, table.columns.pop(roles.group), problems)
    return found


def cells_by_rules(table: Table, rules: Preprocessing, problems: Problems, *, targets: bool) -> dict[str, Cells]:
    """Take the columns that the rules need out of the table, and return their cells. Raises InvalidData if one is not
    there."""
    wanted: Mapping[str, Any] = {rule.name: rule for rule in rules.inputs}
    names = [*wanted, *(rules.target.names if targets else ())]
    require_columns(table, names, problems.source)
    found: dict[str, Cells] = {}
    keep = kept_cells(table, len(names), problems.source)
    for name in names:
        column = table.columns.pop(name)
        rule = wanted.get(name)
        category = isinstance(rule, CategoryRule) or (rule is None and rules.target.classes is not None)
        finite = name in table.finite
        made = _categories(name, column, problems) if category else number_cells(name, column, problems, finite=finite)
        found[name] = keep(made)
    return found


def _input_cells(name: str, column: Any, said: str | None, problems: Problems, *, finite: bool) -> Cells:
    if said == "category":
        return _categories(name, column, problems)
    if said == "number" or is_numeric(column):
        return number_cells(name, column, problems, finite=finite)
    if is_date(column):
        problems.add(
            f"column {shown(name)} holds dates; write data.columns: {{{name}: drop}}, or {name}: number for days since "
            "1970-01-01"
        )
        return NumberCells(name, np.zeros(len(column)))
    if not is_text(column):
        return number_cells(name, column, problems)
    return _clear_texts(category_cells(name, column), problems)


def _categories(name: str, column: Any, problems: Problems) -> CategoryCells:
    """Return a column as categories. Adds a problem for a column of lists, bytes or other values without a text."""
    if has_texts(column):
        return category_cells(name, column)
    problems.add(f"column {shown(name)} is of type {column.type}, which is no category; write {name}: drop")
    return CategoryCells(name, np.zeros(len(column), dtype=np.int32), ("",))


def _clear_texts(cells: CategoryCells, problems: Problems) -> Cells:
    """Return the cells of a column of texts whose kind the job does not say: a category, if it looks like one."""
    name, counts = cells.name, cells.counts()
    filled, distinct = int(counts.sum()), len(cells.texts)
    numbers = int(sum(n for text, n in zip(cells.texts, counts.tolist(), strict=True) if is_number(text)))
    if filled and numbers == filled:
        problems.add(
            f"column {shown(name)} holds texts that are numbers, such as {shown(cells.texts[0])}; write data.columns: "
            f"{{{name}: number}}, or {name}: category"
        )
    elif 2 * numbers > filled:
        right = f"a number as most cells of this column; or write data.columns: {{{name}: category}}"
        return numbers_of_texts(cells, problems, right)
    elif 10 * numbers >= filled > 0:
        text = next(text for text in cells.texts if not is_number(text))
        problems.add(
            f"column {shown(name)} holds {counted(numbers, 'number')} and {counted(filled - numbers, 'text')} such as "
            f"{shown(text)}; write data.columns: {{{name}: category}}, or number, and mend the texts"
        )
    elif distinct > MOST_CATEGORIES or 2 * distinct >= len(cells):
        problems.add(
            f"column {shown(name)} has {distinct:,} different texts in {counted(len(cells), 'row')}; write "
            f"data.columns: {{{name}: drop}}, or {name}: category for an input for each of them"
        )
    return cells


def _target_cells(name: str, column: Any, said: str | None, loss: Loss, single: bool, problems: Problems) -> Cells:
    texts = is_text(column) or str(column.type) == "bool"
    if said == "number" or not single:
        return number_cells(name, column, problems)
    two_classes = loss.targets_between == (0.0, 1.0) and loss.classifies
    if loss.takes_labels or (two_classes and (texts or said == "category")):
        return _categories(name, column, problems)
    if said == "category":
        problems.add(
            f"column {shown(name)}, the target, is a category, but the loss takes numbers; write model.loss: "
            "cross_entropy, with units: classes in the last layer"
        )
        return _categories(name, column, problems)
    if is_text(column):
        cells = category_cells(name, column)
        if 2 * sum(map(is_number, cells.texts)) > len(cells.texts):
            return numbers_of_texts(cells, problems, "a number, which the loss takes")
        problems.add(
            f"column {shown(name)}, the target, holds texts such as {shown(next(iter(cells.texts), ''))}, but the loss "
            "takes numbers; write model.loss: cross_entropy, with units: classes in the last layer"
        )
        return cells
    return number_cells(name, column, problems)
