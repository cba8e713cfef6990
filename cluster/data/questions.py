"""Rows that a trained network must answer: their inputs, and what tells them apart. `predict` asks them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.data.checks import fitting_inputs
from cluster.data.files import Arrays, Table, read_source
from cluster.data.table_data import rows_by_rules
from cluster.data.tables.preprocessing import Preprocessing
from coordinator.job.spec import JobSpec
from coordinator.texts import counted, some
from stages.errors import InvalidData

_MOST_PLACES = 5
ROW = "row"
"""The name of the column with rows' numbers, from 1, if no column of the input is their key."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Questions:
    """The rows of an input. `x`, an array or `FileRows`, has the inputs (answered rows, features) of those that can be
    answered; `answered` has their numbers, ascending from 0.

    `keys` is a column of Arrow or NumPy (n_rows,) called `key`. `said` are lines for the user about the rows.
    """

    x: Any
    n_rows: int
    answered: NDArray[np.int64]
    key: str
    keys: Any
    said: tuple[str, ...] = ()


def load_questions(spec: JobSpec, source: str, rules: Preprocessing | None) -> Questions:
    """Read the inputs from any source. A table may have its columns in any order, and others. Raises InvalidData."""
    content = read_source(source, None, spec.data)
    if isinstance(content, Arrays):
        x = fitting_inputs(content.x, spec.model_spec(), source)
        return Questions(
            x=x, n_rows=len(x), answered=np.arange(len(x)), key=ROW, keys=np.arange(1, len(x) + 1), said=content.notes
        )
    if rules is None:
        raise InvalidData(f"{source}: has columns, but the model was trained on arrays; give an .npz with x")
    key, keys = _keys(content, rules)  # first: the columns are taken out of the table
    found = rows_by_rules(spec, content, rules, source, targets=False)
    said = [*content.notes, *found.said]
    if missing := content.n_rows - len(found.kept):
        said.append(
            f"{counted(missing, 'row')} of {content.n_rows:,} without an answer: {_places(content, found.kept)}"
        )
    return Questions(x=found.x, n_rows=content.n_rows, answered=found.kept, key=key, keys=keys, said=tuple(said))


def _keys(table: Table, rules: Preprocessing) -> tuple[str, Any]:
    named = [rules.key] if rules.key is not None else []
    for name in (*named, *table.index):
        if name in table.columns:
            return name or ROW, table.columns[name]
    return ROW, np.arange(1, table.n_rows + 1)


def _places(table: Table, kept: NDArray[np.int64]) -> str:
    """Return the places of the rows that are not kept, as texts."""
    missing = np.setdiff1d(np.arange(table.n_rows), kept)
    lines = missing + 1 if table.lines is None else table.lines[missing]
    kind = "row" if table.lines is None else "line"
    return f"{kind}{'s' if len(missing) > 1 else ''} {some([str(line) for line in lines], _MOST_PLACES)}"
