"""Applies the rules of `cluster.data.preprocessing` to the rows of a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from cluster.data.cells import is_numeric, number_cells, text_cells
from cluster.data.files import AnyArray, Table
from cluster.data.preprocessing import CategoryRule, Preprocessing
from cluster.data.tables import require_columns
from stages.errors import InvalidData


def inputs_of(table: Table, rules: Preprocessing, precision: str, source: str) -> AnyArray:
    """Return x (rows, features) in the job's precision. Columns are found by their names. Raises InvalidData."""
    require_columns(table, rules.columns, source)
    x: AnyArray = np.empty((table.n_rows, len(rules.features)), dtype=precision)
    place = 0
    for rule in rules.inputs:
        column = table.columns[rule.name]
        if isinstance(rule, CategoryRule):
            texts = text_cells(column)
            for category in rule.categories:
                x[:, place] = _equals(texts, category)
                place += 1
        else:
            x[:, place] = (number_cells(column) - rule.offset) / rule.divisor
            place += 1
    return x


def targets_of(table: Table, rules: Preprocessing, precision: str, source: str) -> AnyArray:
    """Return y: labels (rows,) int64, or numbers (rows, targets) in the job's precision. Raises InvalidData."""
    target = rules.target
    require_columns(table, target.names, source)
    if target.classes is not None:
        column = table.columns[target.names[0]]
        names = [f"{v:g}" for v in number_cells(column)] if is_numeric(column) else text_cells(column).to_pylist()
        known = {name: label for label, name in enumerate(target.classes)}
        wrong = next((name for name in names if name not in known), None)
        if wrong is not None:
            raise InvalidData(f"{source}: {wrong!r} in column {target.names[0]!r} is not a class that the model knows")
        return np.array([known[name] for name in names], dtype=np.int64)
    columns = [
        (number_cells(table.columns[name]) - offset) / divisor
        for name, offset, divisor in zip(target.names, target.offsets, target.divisors, strict=True)
    ]
    return np.stack(columns, axis=1).astype(precision)


def _equals(texts: Any, value: str) -> AnyArray:
    import pyarrow.compute as pc

    found: AnyArray = pc.fill_null(pc.equal(texts, value), False).to_numpy()
    return found
