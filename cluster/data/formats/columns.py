"""What all tables have in common: the names of columns, and which of them are an index."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cluster.data.content import LazyLines, Table
from stages.errors import InvalidData

INDEX_NAME = "Unnamed: 0"
"""The name of a first column without one: the name that pandas gives it."""
_STORED_INDEX = re.compile(r"__index_level_\d+__")
_UNNAMED = re.compile(r"Unnamed: \d+(\.\d+)*")
_MOST_SHOWN = 5


def header_names(cells: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of the columns without spaces around them, and those of them that stand for no name. A first
    column without a name is called INDEX_NAME, later ones `column 4`, counted from 1."""
    names, nameless = [], []
    for k, cell in enumerate(cells):
        name = cell.strip()
        if not name:
            name = INDEX_NAME if k == 0 else f"column {k + 1}"
            nameless.append(name)
        names.append(name)
    return names, nameless


def require_single(names: Sequence[str], source: str) -> None:
    """Raise InvalidData if several columns have one name."""
    seen: set[str] = set()
    if doubled := list(dict.fromkeys(name for name in names if name in seen or seen.add(name))):  # type: ignore[func-returns-value]
        shown = ", ".join(map(repr, doubled[:_MOST_SHOWN])) + (", …" if len(doubled) > _MOST_SHOWN else "")
        raise InvalidData(f"{source}: has several columns called {shown}; give each its own name")


def table_of(
    table: Any,
    source: str,
    *,
    index: Iterable[str] = (),
    notes: Iterable[str] = (),
    lines: LazyLines | None = None,
    place: Callable[[int], str] | None = None,
) -> Table:
    """Return Arrow's table. Its index are the columns `index`, those that pandas has stored as one, and first columns
    that have no name of their own. Raises InvalidData if two columns have one name."""
    names: list[str] = table.column_names
    require_single(names, source)
    found = [*index, *_stored_index(table), *filter(_STORED_INDEX.fullmatch, names)]
    for name in names:
        if not _UNNAMED.fullmatch(name):
            break
        found.append(name)
    return Table(
        columns={name: table.column(name) for name in names},
        n_rows=table.num_rows,
        index=tuple(dict.fromkeys(name for name in found if name in names)),
        notes=tuple(notes),
        lines=lines,
        place=place,
    )


def _stored_index(table: Any) -> list[str]:
    """The columns that are the index of a data frame, by the metadata that pandas has stored."""
    try:
        found = (table.schema.pandas_metadata or {}).get("index_columns", [])
    except ValueError:  # damaged metadata
        return []
    return [name for name in found if isinstance(name, str)]
