"""Tables whose numbers are too many for memory: on their way to training they are in temporary files on disk.

[Note: large tables] Rows in the order of an epoch need random access, which files of tables do not give. So a large
table is converted once, when it is read:

    columns of numbers   one after another into a temporary file, if all of them take `LARGE_TABLE` bytes or more, 8 for
                         a number; the rules are fitted to them in blocks, as to columns in memory, with the same bits.
                         Those of a large text are in its reader's file already (`cluster.data.formats.stored_text`)
    inputs               the rows, after preprocessing and in the job's precision, into another one, if they take
                         `LARGE_TABLE` bytes or more; the columns' file is then freed

In memory are one column at a time while the table is read, the places of texts in columns of categories (4 bytes each),
and the targets.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.data.content import Table
from cluster.data.formats.stored_text import MappedColumns
from cluster.data.tables.cells import Cells, NumberCells
from cluster.data.temporary import TemporaryNumbers, disk_line, is_large
from stages.file_numbers import FileRows

_FLOAT64 = np.dtype(np.float64)


def kept_cells(table: Table, n_columns: int, source: str) -> Callable[[Cells], Cells]:
    """Return a function that moves the numbers of a column to disk if the table is large; those that its reader has put
    there stay where they are. Raises InvalidData if the disk has no room for the columns."""
    if not is_large(table.n_rows, n_columns):
        return lambda cells: cells
    columns, n_left = table.columns, n_columns
    file: TemporaryNumbers | None = None

    def keep(cells: Cells) -> Cells:
        nonlocal file, n_left
        n_left -= 1
        if not isinstance(cells, NumberCells):
            return cells
        if isinstance(columns, MappedColumns) and (stored := columns.in_file(cells.values)) is not None:
            return replace(cells, values=stored)
        file = file or TemporaryNumbers(table.n_rows * (n_left + 1) * _FLOAT64.itemsize, source)
        return replace(cells, values=file.append(cells.all()))

    return keep


def stored_rows(
    blocks: Iterable[tuple[int, NDArray[Any]]], n_rows: int, width: int, dtype: np.dtype[Any], source: str
) -> FileRows:
    """Write blocks of rows to disk, and return all of them as rows of that file; without blocks the rows have only a
    number, and cannot be read. Raises InvalidData if the disk has no room."""
    file, crc = TemporaryNumbers(n_rows * width * dtype.itemsize, source), 0
    numbers = file.append(np.empty(0, dtype))
    for _, block in blocks:
        crc = zlib.crc32(np.ascontiguousarray(block).view(np.uint8).data, crc)
        file.append(block)
    return FileRows(numbers=replace(numbers, size=n_rows * width), width=width, dtype=dtype, crc=crc)


def stored_line(x: NDArray[Any] | FileRows) -> tuple[str, ...]:
    """Return a line for the user about inputs that are on disk; none for others."""
    if not isinstance(x, FileRows):
        return ()
    return (disk_line("its inputs", x.numbers),)
