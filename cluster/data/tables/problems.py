"""Collects everything that is wrong with a file's cells, so that a user sees it all at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.data.files import Table
from stages.errors import InvalidData

MOST_SHOWN = 20
"""The most problems of a file that are listed; the others are counted."""
_MOST_CHARACTERS = 40


def shown(value: object) -> str:
    """Return a cell's value on one line, in quotes if it is a text, shortened if it is long."""
    if not isinstance(value, str):
        return f"{value:g}" if isinstance(value, float) else str(value)
    short = value if len(value) <= _MOST_CHARACTERS else f"{value[: _MOST_CHARACTERS - 1]}…"
    return f"'{short}'" if short.isprintable() and "'" not in short else json.dumps(short)


@dataclass(slots=True)
class Problems:
    """The problems of one source. `raise_any` raises InvalidData with a line for each."""

    source: str
    table: Table
    _of_columns: list[str] = field(default_factory=list)
    _of_cells: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    _more: int = 0

    def add(self, problem: str) -> None:
        """Add a problem of whole columns."""
        self._of_columns.append(f"{self.source}: {problem}")

    def add_cells(self, column: str, wrong: NDArray[np.bool_], value: Callable[[int], Any], right: str) -> None:
        """Add a problem for each row that is True in `wrong` (rows,). `value` gives a row's cell; `right` completes
        "must be …"."""
        rows = np.flatnonzero(wrong)
        found = self._of_cells.setdefault(column, [])
        for row in rows[:MOST_SHOWN].tolist():
            place = f"{self.source}: {self.table.where(row)}, column {shown(column)}"
            found.append((row, f"{place}: got {shown(value(row))}, must be {right}"))
        self._more += max(0, len(rows) - MOST_SHOWN)

    def raise_any(self) -> None:
        """Raise InvalidData with all problems, at most MOST_SHOWN and a count of the others. Each column with wrong
        cells is among those shown if there is room."""
        by_column = [sorted(found) for found in self._of_cells.values()]
        in_turn = [one for one in chain(*zip_longest(*by_column)) if one is not None]
        total = len(self._of_columns) + len(in_turn) + self._more
        if not total:
            return
        lines = self._of_columns[:MOST_SHOWN]
        chosen = set(in_turn[: MOST_SHOWN - len(lines)])
        lines += [one[1] for found in by_column for one in found if one in chosen]
        if total > len(lines):
            lines.append(f"{self.source}: and {total - len(lines):,} more problems")
        raise InvalidData("\n".join(lines))
