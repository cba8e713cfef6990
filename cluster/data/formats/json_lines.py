"""JSON lines, also compressed: an object on each line, whose entries are the cells of a row.

An entry that is missing is an empty cell. Texts that are dates all through a column become dates, as in a .csv.
"""

from __future__ import annotations

import json
from typing import IO, Any

import numpy as np

from cluster.data.content import AnyArray, LazyLines, Table
from cluster.data.formats.columns import table_of
from cluster.data.formats.plain_bytes import PlainBytes, plain_bytes
from stages.errors import InvalidData

MOST_PROBLEMS = 20
_BLOCK = 2**20
_SHOWN = 40
_KINDS = {bool: "a truth value", int: "a number", float: "a number", str: "a text", dict: "an object", list: "a list"}


def read_json_lines(file: IO[bytes], source: str, most_bytes: int | None) -> Table:
    """Return the columns of an open file. Raises InvalidData with a line for each problem."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    content, compression = plain_bytes(file, source, most_bytes)
    if not content.size:
        raise InvalidData(f"{source}: is empty; it must hold an object on each line")
    start = 3 if content.native().read(3) == b"\xef\xbb\xbf" else 0
    try:
        options = arrow_json.ReadOptions(block_size=max(_BLOCK, 4 * _longest(content)))
        table = arrow_json.read_json(content.native(start), read_options=options)
        table.validate(full=True)
    except (pa.ArrowInvalid, UnicodeDecodeError):  # its message names no line
        _raise_problems(content, source)
        raise
    nested = [name for name, one in zip(table.column_names, table.columns, strict=True) if pa.types.is_nested(one.type)]
    if nested:
        _raise_problems(content, source)
    notes = [f"read as: {compression}"] if compression else []
    return table_of(table, source, notes=notes, lines=LazyLines(lambda: _lines(content)))


def _longest(content: PlainBytes) -> int:
    with content.file() as file:
        return max((len(line) for line, _ in zip(file, range(100), strict=False)), default=0)


def _lines(content: PlainBytes) -> AnyArray:
    with content.file() as file:
        return np.array([k for k, line in enumerate(file, 1) if line.strip()], dtype=np.int64)


def _raise_problems(content: PlainBytes, source: str) -> None:
    """Raise InvalidData with a line for each line that is no object of plain cells, or whose cells are of another kind
    than those before. Return if there is none."""
    kinds: dict[str, tuple[str, int]] = {}
    problems: list[str] = []
    total = 0
    with content.file() as file:
        for number, line in enumerate(file, 1):
            for problem in _problems(line, number, kinds):
                total += 1
                if total <= MOST_PROBLEMS:
                    problems.append(f"{source}: line {number:,} {problem}")
    if total > MOST_PROBLEMS:
        problems.append(f"{source}: and {total - MOST_PROBLEMS:,} more problems")
    if problems:
        raise InvalidData("\n".join(problems))


def _problems(line: bytes, number: int, kinds: dict[str, tuple[str, int]]) -> list[str]:
    """Return the problems of a line. `kinds` has the kind of each column's cells, and the line that shows it."""
    if not line.strip():
        return []
    try:
        pairs = json.loads(line.decode("utf-8-sig"), object_pairs_hook=tuple)
    except UnicodeDecodeError:
        return ["is not in UTF-8, in which JSON is written"]
    except (ValueError, RecursionError) as error:
        return [f"is not JSON: {error}"]
    if not isinstance(pairs, tuple):
        return ['must be an object, such as {"age": 3, "sex": "f"}']
    found = [f"has two entries {name!r}" for name in {n for n, _ in pairs if [m for m, _ in pairs].count(n) > 1}]
    for name, value in pairs:
        kind = "an object" if isinstance(value, tuple) else _KINDS.get(type(value))
        if kind in ("an object", "a list"):
            found.append(f"has {kind} in {name!r}; write its values as entries of their own, or leave it out")
        elif kind is not None and kinds.setdefault(name, (kind, number))[0] != kind:
            first, place = kinds[name]
            found.append(f"has {kind} in {name!r}, {_shown(value)}, but line {place:,} has {first}")
    return found


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
