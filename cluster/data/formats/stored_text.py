"""Cells of a large text on their way to columns: part by part to a temporary file, then mapped from it."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cluster.data.formats.lazy_columns import LazyColumns
from cluster.data.pieces import Pieces
from cluster.data.temporary import temporary_file
from stages.file_numbers import FileNumbers, OpenFile

LARGE_TEXT = 256 * 2**20
"""Bytes of a text from which on its cells go to disk."""
_PART_BYTES = 16 * 2**20
_MOST_WHOLE = 2.0**63
_LEAST_ROWS = 1000
"""Rows of a chunk, on average, that are worth a call of their own. A very wide table has chunks of a few rows."""


class ColumnSeen(NamedTuple):
    """What is in a column of float64. `large`: a number of 2^63 or more; `finite`: nothing but finite numbers."""

    large: bool
    finite: bool


@dataclass(frozen=True, slots=True, eq=False)
class StoredColumns:
    """Columns by name, mapped from a file. `seen` is what was found in the columns of float64."""

    columns: dict[str, Any]
    seen: dict[str, ColumnSeen]
    _file: OpenFile
    _mapped: mmap.mmap

    def one_at_a_time(self, columns: dict[str, Any]) -> MappedColumns:
        """Return the columns, which may be others by now, so that the pages of those before leave this process's memory
        if the next is asked for."""
        return MappedColumns(columns, self._file, self._mapped)


class MappedColumns(LazyColumns):
    """Columns that are mapped from a file, or in memory."""

    def __init__(self, columns: dict[str, Any], file: OpenFile, mapped: mmap.mmap) -> None:
        def read(name: str) -> Any:
            mapped.madvise(mmap.MADV_DONTNEED)  # nothing is lost: the pages stay in the file
            return columns[name]

        super().__init__(columns, read)
        self._file, self._begin, self._size = file, np.frombuffer(mapped, np.uint8).ctypes.data, len(mapped)

    def in_file(self, values: Any) -> Pieces | None:
        """Return the same numbers as parts of the file, which are read when they are needed; None if they are not the
        mapped ones. Reading has half the cost of mapping pages again and again."""
        parts: list[Any] = list(values.parts) if isinstance(values, Pieces) else [values]
        found = []
        for part in parts:
            place = part.ctypes.data - self._begin if isinstance(part, np.ndarray) else -1
            if not 0 <= place < self._size or not part.flags.c_contiguous:
                return None
            found.append(FileNumbers(self._file, part.dtype, place, len(part)))
        return Pieces.of(found)


def stored_columns(parts: Iterable[Any], n_bytes: int, source: str) -> StoredColumns:
    """Return the columns of Arrow's batches or tables of one schema. They are mapped from a file without a name, which
    nobody can change. `n_bytes`: about what they take. Raises InvalidData if the disk has no room, and what reading the
    parts raises."""
    import pyarrow as pa

    file = temporary_file(n_bytes, source)
    seen: dict[str, ColumnSeen] = {}
    with pa.OSFile(f"/dev/fd/{file.descriptor}", "wb") as sink:
        writer = None
        for part in parts:
            if writer is None:
                writer = pa.ipc.new_file(sink, part.schema)
            for name, column in zip(part.schema.names, part.columns, strict=True):
                if column.type == pa.float64():
                    one, before = seen_in(column), seen.get(name, ColumnSeen(large=False, finite=True))
                    seen[name] = ColumnSeen(before.large or one.large, before.finite and one.finite)
            writer.write(part)
        assert writer is not None, "a large text has rows"
        writer.close()
    mapped = mmap.mmap(file.descriptor, 0, access=mmap.ACCESS_READ)
    table = pa.ipc.open_file(pa.py_buffer(mapped)).read_all()
    columns = dict(zip(table.column_names, table.columns, strict=True))
    return StoredColumns(columns, seen, file, mapped)


def seen_in(column: Any) -> ColumnSeen:
    """Return what is in a column of float64, or in a part of it."""
    import pyarrow.compute as pc

    large, finite = False, True
    chunks = getattr(column, "chunks", (column,))
    if len(column) < _LEAST_ROWS * len(chunks) and len(chunks) > 1:
        chunks = (column.combine_chunks(),)
    for chunk in chunks:
        if not chunk.null_count and len(chunk):
            values = np.from_dlpack(chunk)
            least, most = float(values.min()), float(values.max())  # NaN if one of them is; much quicker than Arrow's
            if not math.isnan(least):
                large = large or max(-least, most) >= _MOST_WHOLE
                finite = finite and math.isfinite(least) and math.isfinite(most)
                continue
        ends = pc.min_max(chunk).as_py()
        large = large or (ends["min"] is not None and max(-ends["min"], ends["max"]) >= _MOST_WHOLE)
        finite = finite and not len(chunk)
    return ColumnSeen(large, finite)


def whole_lines(file: Any) -> Iterator[Any]:
    """Yield the rest of an Arrow file in buffers that end with a line's end. Arrow reads such a part with several
    threads; its reader of blocks has one for the cells."""
    place, left = file.tell(), file.size() - file.tell()
    while left:
        part = file.read_buffer(_PART_BYTES)
        n = part.size if part.size == left else _last_end(part)
        if not n:  # a line longer than a part
            file.seek(place)
            part = file.read_buffer(left)
            n = left
        yield part.slice(0, n)
        place, left = place + n, left - n
        file.seek(place)


def _last_end(part: Any) -> int:
    """Return the number of bytes of the whole lines; 0 if no line ends in the part."""
    size, tail = part.size, 2**12
    while True:
        tail = min(size, tail * 16)
        last = bytes(memoryview(part)[size - tail :])
        end = last.rfind(b"\n") + 1 or (last.rfind(b"\r", 0, -1) + 1 if tail == size else 0)  # \n may follow the last
        if end or tail == size:
            return size - tail + end if end else 0
