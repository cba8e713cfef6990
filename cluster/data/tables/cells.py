"""The cells of a table's columns as NumPy arrays: numbers with NaN for empty cells, or the numbers of known texts."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.data.pieces import Pieces
from cluster.data.tables.problems import Problems, shown
from stages.file_numbers import FileNumbers

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

EMPTY_TEXTS = frozenset(
    ("", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None")
)
"""Texts that stand for an empty cell, as most programs write it."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)
_EXACT = 2.0**53
_LEAST_ROWS = 1000
"""Rows of a chunk, on average, from which on a column stays in them. A very wide table has chunks of a few rows."""


@dataclass(frozen=True, slots=True, eq=False)
class NumberCells:
    """A column of numbers. `values` (rows,): as the file stores them, floats if there are empty cells, which are
    NaN. They are in one array, in pieces, or, of a large table, in a file."""

    name: str
    values: NDArray[Any] | Pieces | FileNumbers
    has_gaps: bool = True
    """False if it is known that no cell is empty."""

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.values)

    def block(self, start: int, stop: int) -> Numbers:
        """Return a copy of some rows as float64."""
        found: Numbers = np.empty(min(stop, len(self)) - start)
        if isinstance(self.values, np.ndarray):
            found[:] = self.values[start:stop]
        else:
            self.values.read_into(found, start)
        return found

    def less(self, offset: float, start: int, stop: int) -> Numbers:
        """Return some rows minus `offset`, as a new array of float64."""
        if isinstance(self.values, np.ndarray):
            found: Numbers = np.subtract(self.values[start:stop], offset, dtype=np.float64)
            return found
        found = self.block(start, stop)
        found -= offset
        return found

    def empty(self) -> Mask | None:
        """Return for each row whether its cell is empty; None if there is no such cell."""
        if self.values.dtype.kind != "f" or not self.has_gaps:
            return None
        found = np.isnan(self.all())
        return found if found.any() else None

    def all(self) -> NDArray[Any]:
        """Return all numbers, as the file stores them."""
        return self.values if isinstance(self.values, np.ndarray) else self.values.whole()

    def value(self, row: int) -> float:
        """Return a row's number."""
        return float(self.block(row, row + 1)[0])


@dataclass(frozen=True, slots=True, eq=False)
class CategoryCells:
    """A column whose cells have one of a few `texts`. `codes` (rows,) int32: places in `texts`, -1 for empty cells.

    Texts are sorted: if the file has numbers, as numbers (which are then in `numbers`), else by their characters.
    """

    name: str
    codes: NDArray[np.int32]
    texts: tuple[str, ...]
    numbers: Numbers | None = None

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.codes)

    def empty(self) -> Mask | None:
        """Return for each row whether its cell is empty; None if there is no such cell."""
        found = self.codes < 0
        return found if found.any() else None

    def value(self, row: int) -> str:
        """Return a row's text, empty for an empty cell."""
        return self.texts[self.codes[row]] if self.codes[row] >= 0 else ""

    def counts(self, rows: NDArray[Any] | slice = slice(None)) -> NDArray[np.int64]:
        """Return how many of these rows have each text."""
        return np.bincount(self.codes[rows] + 1, minlength=len(self.texts) + 1)[1:]


Cells = NumberCells | CategoryCells


def is_numeric(column: Any) -> bool:
    """Whether the file stores the column as numbers or truth values, or all of its cells are empty."""
    import pyarrow as pa

    kind = column.type
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    )


def is_date(column: Any) -> bool:
    """Whether the file stores the column as dates, with or without a time of day."""
    import pyarrow as pa

    return bool(pa.types.is_date(column.type) or pa.types.is_timestamp(column.type))


def is_text(column: Any) -> bool:
    """Whether the file stores the column as texts, or as places in a list of texts."""
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def has_texts(column: Any) -> bool:
    """Whether every cell of the column can be written as a text."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        return has_texts(pa.chunked_array([], type=column.type.value_type))
    return is_text(column) or is_numeric(column) or is_date(column) or pa.types.is_time(column.type)


def number_cells(name: str, column: Any, problems: Problems, *, finite: bool = False) -> NumberCells:
    """Return a column as numbers. Texts that are numbers are parsed, dates become days since 1970-01-01, truth values
    0 and 1. Adds a problem for each text that is no number, and for columns of other types. `finite`: it is known that
    all cells are finite numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if is_text(column):
        return numbers_of_texts(category_cells(name, column), problems, "a number")
    if is_date(column):
        exact = pa.timestamp("us", tz=getattr(column.type, "tz", None))
        microseconds = pc.cast(pc.cast(column, exact, safe=False), pa.int64())
        return NumberCells(name, _plain(microseconds) / 86_400_000_000)
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if not is_numeric(column):
        problems.add(f"column {shown(name)} is of type {column.type}, which is no number; write {name}: drop")
        return NumberCells(name, np.zeros(len(column)))
    if pa.types.is_boolean(column.type):
        column = pc.cast(column, pa.int8())
    if pa.types.is_decimal(column.type) or pa.types.is_null(column.type):
        column = pc.cast(column, pa.float64(), safe=False)
    parts = _plain_parts(column)
    apart = len(parts) > 1 and len(column) >= _LEAST_ROWS * len(parts)
    cells = NumberCells(name, Pieces.of(parts) if apart else _joined(parts), has_gaps=not finite)
    return cells if finite else _finite(cells, problems)


def _finite(cells: NumberCells, problems: Problems) -> NumberCells:
    values = cells.values
    parts = values.arrays() if isinstance(values, Pieces) else (cells.all(),)
    if values.dtype.kind != "f" or all(np.isfinite(part).all() for part in parts):
        return replace(cells, has_gaps=False)
    if (infinite := np.isinf(cells.all())).any():
        problems.add_cells(cells.name, infinite, cells.value, "a finite number, or empty")
    return cells


def numbers_of_texts(cells: CategoryCells, problems: Problems, right: str) -> NumberCells:
    """Return the numbers that the texts of a column are. Adds a problem, "must be `right`", for every other text."""
    wrong = np.array([*(not is_number(text) for text in cells.texts), False])
    found = np.array([*(0.0 if bad else float(text) for text, bad in zip(cells.texts, wrong, strict=False)), np.nan])
    if wrong.any():
        problems.add_cells(cells.name, wrong[cells.codes], cells.value, right)
    return _finite(NumberCells(cells.name, found[cells.codes]), problems)


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    return _NUMBER.fullmatch(text.strip()) is not None


def category_cells(name: str, column: Any) -> CategoryCells:
    """Return a column as places in the list of its texts. Numbers and truth values are texts too: `1`, `0.5`, `true`;
    a whole number is the same text in all types."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    if not is_numeric(column) and not is_text(column):
        column = pc.cast(column, pa.string())
    if pa.types.is_null(column.type):
        return CategoryCells(name, np.full(len(column), -1, dtype=np.int32), ())
    numeric = is_numeric(column) and not pa.types.is_boolean(column.type)
    encoded = pa.chunked_array(column.dictionary_encode().unify_dictionaries())
    found = _plain(pa.chunked_array([chunk.indices for chunk in encoded.chunks], pa.int32()))
    codes = np.nan_to_num(found, nan=-1).astype(np.int32) if found.dtype.kind == "f" else found
    values = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
    texts = [_text(value) for value in values]
    known = {text for text in texts if text not in EMPTY_TEXTS}
    ordered = sorted(known, key=lambda text: (float(text), text)) if numeric else sorted(known)
    place = {text: k for k, text in enumerate(ordered)}
    moved = np.array([*(place.get(text, -1) for text in texts), -1], dtype=np.int32)
    numbers = np.array([float(text) for text in ordered]) if numeric else None
    return CategoryCells(name, moved[codes], tuple(ordered), numbers)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if abs(value) < _EXACT and value == int(value) else repr(value)
    return str(value)


def _plain(column: Any) -> NDArray[Any]:
    """Return a column of numbers as an array; with empty cells as float64, NaN for these.

    Arrow's own `to_numpy` imports pandas if that is installed, which takes a second in every process.
    """
    return _joined(_plain_parts(column))


def _plain_parts(column: Any) -> list[NDArray[Any]]:
    return [_plain_chunk(chunk) for chunk in column.chunks if len(chunk)]


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0)


def _plain_chunk(chunk: Any) -> NDArray[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not chunk.null_count:
        return np.from_dlpack(chunk)
    if chunk.null_count == len(chunk):
        return np.full(len(chunk), np.nan)
    bare = pa.Array.from_buffers(chunk.type, len(chunk), [None, chunk.buffers()[1]], offset=chunk.offset)
    values = np.from_dlpack(bare).astype(np.float64)
    values[np.from_dlpack(pc.cast(chunk.is_null(), pa.uint8())) != 0] = np.nan
    return values
