"""Cells of a large text on their way to columns: part by part to a temporary file, then mapped from it."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cluster.data.formats.lazy_columns import LazyColumns
from cluster.data.temporary import temporary_file

LARGE_TEXT = 256 * 2**20
"""Bytes of a text from which on its cells go to disk."""
_PART_BYTES = 16 * 2**20
_MOST_WHOLE = 2.0**63


@dataclass(frozen=True, slots=True, eq=False)
class StoredColumns:
    """Columns by name, mapped from a file. `large` are those of float64 with a number of 2^63 or more."""

    columns: dict[str, Any]
    large: frozenset[str]
    _mapped: mmap.mmap

    def one_at_a_time(self, columns: dict[str, Any]) -> dict[str, Any]:
        """Return the columns, which may be others by now, so that the pages of those before leave this process's memory
        if the next is asked for."""

        def read(name: str) -> Any:
            self._mapped.madvise(mmap.MADV_DONTNEED)  # nothing is lost: the pages stay in the file
            return columns[name]

        return LazyColumns(columns, read)


def stored_columns(parts: Iterable[Any], n_bytes: int, source: str) -> StoredColumns:
    """Return the columns of Arrow's batches or tables of one schema. They are mapped from a file without a name, which
    nobody can change. `n_bytes`: about what they take. Raises InvalidData if the disk has no room, and what reading the
    parts raises."""
    import pyarrow as pa

    file = temporary_file(n_bytes, source)
    large = set[str]()
    with pa.OSFile(f"/dev/fd/{file.descriptor}", "wb") as sink:
        writer = None
        for part in parts:
            if writer is None:
                writer = pa.ipc.new_file(sink, part.schema)
            columns = zip(part.schema.names, part.columns, strict=True)
            large |= {name for name, column in columns if name not in large and is_large_number(column)}
            writer.write(part)
        assert writer is not None, "a large text has rows"
        writer.close()
    mapped = mmap.mmap(file.descriptor, 0, access=mmap.ACCESS_READ)
    table = pa.ipc.open_file(pa.py_buffer(mapped)).read_all()
    return StoredColumns(dict(zip(table.column_names, table.columns, strict=True)), frozenset(large), mapped)


def is_large_number(column: Any) -> bool:
    """Whether a column of float64 has a number of 2^63 or more."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.type != pa.float64():
        return False
    ends = pc.min_max(column).as_py()
    return ends["min"] is not None and max(-ends["min"], ends["max"]) >= _MOST_WHOLE


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
