"""Rows that a trained network must answer: their inputs, and what tells them apart. `predict` asks them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.data.applying import inputs_of
from cluster.data.cells import empty_cells, text_cells
from cluster.data.checks import fitting_inputs
from cluster.data.files import AnyArray, Arrays, Table, read_source
from cluster.data.preprocessing import CategoryRule, Preprocessing
from cluster.data.tables import require_columns
from coordinator.job.spec import JobSpec
from coordinator.texts import counted, some
from stages.errors import InvalidData

ROW = "row"
"""The name of the column with rows' numbers, from 1, if no column of the input is their key."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Questions:
    """The rows of an input. `x` has the inputs (answered rows, features) of those that can be answered: `answered` has
    their numbers, ascending from 0. `keys` is a column of Arrow or NumPy (n_rows,) called `key`.

    `said` are lines for the user about the rows.
    """

    x: AnyArray
    n_rows: int
    answered: NDArray[np.int64]
    key: str
    keys: Any
    said: tuple[str, ...] = ()


def load_questions(spec: JobSpec, source: str, rules: Preprocessing | None) -> Questions:
    """Read the inputs from any source. A table may have its columns in any order, and others. Raises InvalidData."""
    content = read_source(source)
    if isinstance(content, Arrays):
        x = fitting_inputs(content.x, spec.model_spec(), source)
        return Questions(x=x, n_rows=len(x), answered=np.arange(len(x)), key=ROW, keys=np.arange(1, len(x) + 1))
    if rules is None:
        raise InvalidData(f"{source}: has columns, but the model was trained on arrays; give an .npz with x")
    require_columns(content, rules.columns, source)
    dropped, why = _dropped(content, rules)
    answered = np.flatnonzero(~dropped)
    asked = taken(content, answered) if dropped.any() else content
    x = inputs_of(asked, rules, spec.precision, source)
    x = fitting_inputs(x, spec.model_spec(), source, rules.features) if len(answered) else x
    key, keys = _keys(content, rules)
    said = [*content.notes, *why, *_unknown(asked, rules)]
    return Questions(x=x, n_rows=content.n_rows, answered=answered, key=key, keys=keys, said=tuple(said))


def taken(table: Table, rows: NDArray[np.int64]) -> Table:
    """Return the table with these rows alone."""
    columns = {name: column.take(rows) for name, column in table.columns.items()}
    lines = None if table.lines is None else table.lines[rows]
    return replace(table, columns=columns, n_rows=len(rows), lines=lines)


def _dropped(table: Table, rules: Preprocessing) -> tuple[NDArray[np.bool_], list[str]]:
    """Return for each row whether it has no answer, with a line that says why."""
    dropped, gaps = np.zeros(table.n_rows, dtype=bool), []
    for rule in rules.inputs:
        if rule.missing != "drop":
            continue
        empty = empty_cells(table.columns[rule.name])
        if empty.any():
            gaps.append(f"{rule.name} ({np.count_nonzero(empty):,})")
            dropped |= empty
    if not gaps:
        return dropped, []
    rows = np.flatnonzero(dropped)
    places = [str(row + 1 if table.lines is None else table.lines[row]) for row in rows[:6]]
    where = f"{'rows' if table.lines is None else 'lines'} {some(places[:5] + ['…'] * (len(rows) > 5), 6)}"
    return dropped, [
        f"{counted(len(rows), 'row')} of {table.n_rows:,} without an answer, {where}: empty in {', '.join(gaps)}"
    ]


def _keys(table: Table, rules: Preprocessing) -> tuple[str, Any]:
    named = [rules.key] if rules.key is not None else []
    for name in (*named, *table.index):
        if name in table.columns:
            return name or ROW, table.columns[name]
    return ROW, np.arange(1, table.n_rows + 1)


def _unknown(table: Table, rules: Preprocessing) -> list[str]:
    """Return a line about texts that the training rows do not have; they count as none of the known ones."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = []
    for rule in rules.inputs:
        if not isinstance(rule, CategoryRule):
            continue
        texts = text_cells(table.columns[rule.name]).drop_null()
        known = pc.is_in(texts, value_set=pa.array(rule.categories, pa.string()))
        strange = texts.filter(pc.invert(known))
        if len(strange):
            examples = some([repr(value) for value in strange.unique().to_pylist()], 3)
            found.append(f"{rule.name}: {counted(len(strange), 'cell')} not among the values of training: {examples}")
    return found
