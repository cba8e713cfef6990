"""Turns a table's columns into inputs and targets. Errors count rows from 1, without the line of column names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cluster.data.files import AnyArray, Arrays, Table
from coordinator.job.nearest import closest
from stages.errors import InvalidData


def split_columns(table: Table, target: Sequence[str] | None, source: str) -> tuple[list[str], list[str]]:
    """Return the names of the input columns and of the target columns (the last column if `target` is None).

    Raises InvalidData if the table lacks a target (the error names the nearest column) or has no other columns.
    """
    names = list(table.columns)
    wanted = list(dict.fromkeys(target)) if target is not None else names[-1:]
    require_columns(table, wanted, source)
    inputs = [name for name in names if name not in wanted]
    if not inputs:
        raise InvalidData(f"{source}: no column is left for the inputs; the target takes {', '.join(wanted) or 'none'}")
    return inputs, wanted


def require_columns(table: Table, names: Sequence[str], source: str) -> None:
    """Raise InvalidData for the first name that is not a column. The error names the nearest column."""
    for name in names:
        if name not in table.columns:
            near = closest(name, table.columns)
            known = ", ".join(list(table.columns)[:8]) + (", …" if len(table.columns) > 8 else "")
            raise InvalidData(
                f"{source}: has no column {name!r}" + (f"; did you mean {near!r}?" if near else f", only {known}")
            )


def arrays_of(table: Table, inputs: Sequence[str], targets: Sequence[str], source: str) -> Arrays:
    """Return x (rows, inputs) in float64, and y (rows, targets) or None without targets.

    y has an integer type if every target column has. Raises InvalidData if a column does not hold numbers.
    """
    if not table.n_rows:
        raise InvalidData(f"{source}: holds no rows")
    x = np.empty((table.n_rows, len(inputs)))
    for i, name in enumerate(inputs):
        x[:, i] = _column(table, name, source)
    y = [_column(table, name, source) for name in targets]
    return Arrays(x=x, y=np.stack(y, axis=1) if y else None)


def _column(table: Table, name: str, source: str) -> AnyArray:
    """Return the column's numbers. Raises InvalidData for an empty cell: as a NaN it would get a less clear error."""
    import pyarrow as pa

    column = table.columns[name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.null_count:
        row = next(i for i, value in enumerate(column) if not value.is_valid) + 1
        raise InvalidData(f"{source}: row {row} of column {name!r} is empty; fill it in or remove the row")
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise InvalidData(f"{source}: column {name!r} is not of numbers: {_first_text(column)}; write it as numbers")
    return np.asarray(column.to_numpy())


def _first_text(column: Any) -> str:
    """Return a text about the first cell that is not a number, with its row."""
    for row, cell in enumerate(column, start=1):
        value = cell.as_py()
        try:
            float(value)
        except (TypeError, ValueError):
            return f"row {row} is {str(value)[:40]!r}"
    return f"its type is {column.type}"
