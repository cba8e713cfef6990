"""Joins the tables of several files: the same columns in all of them, matched by name, and the columns that are written
in the names of folders, as in `year=2024/part-0.parquet`."""

from __future__ import annotations

import bisect
import re
import urllib.parse
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from cluster.data.content import Table
from cluster.data.formats.columns import table_of
from coordinator.texts import some
from stages.errors import InvalidData

MOST_PROBLEMS = 20
_MOST_NAMES = 10
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def require_same_columns(tables: Sequence[Table], names: Sequence[str]) -> None:
    """Raise InvalidData with a line for each file whose columns are others than those of the first file."""
    problems = []
    first = set(tables[0].columns)
    for table, name in zip(tables[1:], names[1:], strict=True):
        missing = [column for column in tables[0].columns if column not in table.columns]
        more = [column for column in table.columns if column not in first]
        parts = [f"has no column {some(missing, _MOST_NAMES)}"] * bool(missing)
        parts += [f"has the column {some(more, _MOST_NAMES)}, which {names[0]} does not have"] * bool(more)
        if parts:
            problems.append(f"{name}: {' and '.join(parts)}")
    if len(problems) > MOST_PROBLEMS:
        problems[MOST_PROBLEMS:] = [f"and {len(problems) - MOST_PROBLEMS:,} more files with other columns"]
    if problems:
        raise InvalidData("\n".join(problems))


def different_types(tables: Sequence[Table]) -> list[str]:
    """Return the columns that have no type in common: numbers in one file, texts in another."""
    import pyarrow as pa

    found = []
    for name in tables[0].columns:
        schemas = [pa.schema([pa.field(name, table.columns[name].type)]) for table in tables]
        try:
            pa.unify_schemas(schemas, promote_options="permissive")
        except (pa.ArrowTypeError, pa.ArrowInvalid):
            found.append(name)
    return found


def joined(
    tables: Sequence[Table],
    names: Sequence[str],
    insides: Sequence[str],
    place_in: Callable[[int, int], str],
    source: str,
) -> Table:
    """Return one table with the rows of all. `names` are the files, `insides` their paths in the folder; `place_in`
    returns where a row of a file is.

    Raises InvalidData if the files have other columns or types of columns.
    """
    import pyarrow as pa

    require_same_columns(tables, names)
    if differing := different_types(tables):
        kinds = [f"{table.columns[differing[0]].type} in {name}" for table, name in zip(tables, names, strict=True)]
        raise InvalidData(f"{source}: column {differing[0]!r} is of other types: {some(list(dict.fromkeys(kinds)), 4)}")
    order = list(tables[0].columns)
    parts = [pa.table({name: table.columns[name] for name in order}) for table in tables]
    whole = pa.concat_tables(parts, promote_options="permissive")
    for name, values in _partitions(insides, source).items():
        if name in order:
            raise InvalidData(f"{source}: {name!r} is a column of the files and in the names of folders; rename one")
        repeated = [pa.repeat(value, table.n_rows) for value, table in zip(values, tables, strict=True)]
        whole = whole.append_column(name, pa.chunked_array(repeated))
    starts = [0, *accumulate(table.n_rows for table in tables)]

    def place(row: int) -> str:
        file = bisect.bisect_right(starts, row) - 1
        return f"{place_in(file, row - starts[file])} of {names[file]}"

    index = [name for name in order if all(name in table.index for table in tables)]
    return table_of(whole, source, index=index, notes=_notes(tables, names), place=place)


def _partitions(insides: Sequence[str], source: str) -> dict[str, list[Any]]:
    """Return the columns in the names of folders, with their value for each file: numbers if all are whole numbers."""
    import pyarrow as pa

    keys = [[part.partition("=")[::2] for part in inside.split("/")[:-1] if "=" in part] for inside in insides]
    names = [[name for name, _ in key] for key in keys]
    if other := next((k for k, one in enumerate(names) if one != names[0]), None):
        raise InvalidData(
            f"{source}: the folders of {insides[0]} and {insides[other]} name other columns; keep them apart"
        )
    found: dict[str, list[Any]] = {}
    for k, name in enumerate(names[0]):
        texts = [urllib.parse.unquote(key[k][1]) for key in keys]
        known = [text for text in texts if text != _NO_VALUE]
        whole = all(re.fullmatch(r"0|-?[1-9]\d{0,17}", text, re.ASCII) for text in known)
        kind = pa.int64() if whole else pa.string()
        found[name] = [pa.scalar(None if text == _NO_VALUE else int(text) if whole else text, kind) for text in texts]
    return found


def _notes(tables: Sequence[Table], names: Sequence[str]) -> list[str]:
    notes = [f"{len(tables):,} files, from {names[0]} to {names[-1]}"]
    if all(table.notes == tables[0].notes for table in tables):
        return [*notes, *tables[0].notes]
    lines = [f"{name}: {note}" for table, name in zip(tables, names, strict=True) for note in table.notes]
    more = [f"and {len(lines) - MOST_PROBLEMS:,} more such lines"] if len(lines) > MOST_PROBLEMS else []
    return [*notes, *lines[:MOST_PROBLEMS], *more]
