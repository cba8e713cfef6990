"""Empty cells: which rows are dropped because of them, and which columns may not have any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.data.files import Table
from cluster.data.tables.cells import CategoryCells, Cells
from cluster.data.tables.problems import Problems, shown
from coordinator.texts import counted, some
from stages.data import RowNumbers

FILLING = ("mean", "median", "most_frequent")
_HINT = "drop, mean, median or most_frequent (for categories drop or most_frequent)"
_MOST_NAMED = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """`rows`: the numbers of the rows that are used, ascending. `said`: a text about the others; empty if there are
    none."""

    rows: RowNumbers
    said: str = ""


def kept_rows(
    table: Table,
    cells: Mapping[str, Cells],
    missing: Mapping[str, str],
    targets: Sequence[str],
    problems: Problems,
    *,
    fitted: bool = False,
) -> Kept:
    """Return the rows that are used. `missing` says for each column what becomes of its empty cells; an empty cell of a
    target or a group, which cannot be filled in, makes its row be dropped or is a problem. `fitted`: the rules are
    those of an earlier file."""
    dropped = np.zeros(table.n_rows, dtype=bool)
    causes, refused = [], []
    for name, column in cells.items():
        rule = missing[name]
        empty = column.empty()
        fills = rule in FILLING and _can_fill(column, rule) and name not in targets
        if empty is None or (fills and (fitted or not empty.all())):
            continue
        if empty.all() and not fitted and name not in targets:
            problems.add(f"column {shown(name)} is empty in all rows; write data.columns: {{{name}: drop}}")
        elif rule == "drop":
            dropped |= empty
            causes.append(name)
        else:
            n, first = int(np.count_nonzero(empty)), table.where(int(empty.argmax()))
            refused.append(f"{name} ({n:,}, {'first on ' if n > 1 else ''}{first})")
    if refused:
        own = [name for name in targets if cells[name].empty() is not None and missing[name] != "drop"]
        only = f"; rows without {some(own)}, which is no input, can only be dropped" if own else ""
        how = "remove these rows, or train with" if fitted else "or write"
        problems.add(f"empty cells in {some(refused, _MOST_NAMED)}; fill them in, {how} data.missing: {_HINT}{only}")
    rows = np.flatnonzero(~dropped)
    if not causes:
        return Kept(rows=rows)
    if not len(rows) and table.n_rows:
        named = some(causes, _MOST_NAMED)
        problems.add(f"every row has an empty cell in {named}; leave out those with many: data.columns: {{NAME: drop}}")
    n_dropped = table.n_rows - len(rows)
    said = f"{counted(n_dropped, 'row')} dropped: empty cells in {some(causes, _MOST_NAMED)}" if n_dropped else ""
    return Kept(rows=rows, said=said)


def _can_fill(column: Cells, rule: str) -> bool:
    return not isinstance(column, CategoryCells) or rule == "most_frequent"
