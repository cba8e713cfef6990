"""Files of Arrow's columns: .feather, .arrow. Of a large one, a column is read when it is asked for."""

from __future__ import annotations

from typing import IO, Any

from cluster.data.content import Table
from cluster.data.formats.columns import table_of
from cluster.data.formats.lazy_columns import LazyColumns
from cluster.data.opening import native_file
from cluster.data.temporary import is_large

_FILE = b"ARROW1"
"""How Arrow's format of files begins; .feather has had it since its version 2."""


def read_feather(file: IO[bytes], source: str) -> Table:
    """Return the columns of an open .feather file, of either version."""
    from pyarrow import feather

    if _begins(file) == _FILE:
        return _read_file(file, source)
    return table_of(feather.read_table(native_file(file), memory_map=False), source)


def read_arrow(file: IO[bytes], source: str) -> Table:
    """Return the columns of an open .arrow file: Arrow's format of files, or of streams."""
    import pyarrow as pa

    if _begins(file) == _FILE:
        return _read_file(file, source)
    return table_of(pa.ipc.open_stream(native_file(file)).read_all(), source)


def _begins(file: IO[bytes]) -> bytes:
    start = file.read(len(_FILE))
    file.seek(0)
    return start


def _read_file(file: IO[bytes], source: str) -> Table:
    import pyarrow as pa

    native = native_file(file)
    opened = pa.ipc.open_file(native)
    n_rows, names = opened.count_rows(), opened.schema.names
    if not is_large(n_rows, len(names)):
        return table_of(opened.read_all(), source)
    checked = table_of(opened.schema.empty_table(), source)

    def read(name: str) -> Any:
        options = pa.ipc.IpcReadOptions(included_fields=[names.index(name)])
        return pa.ipc.open_file(native, options=options).read_all().column(0)

    return Table(columns=LazyColumns(checked.columns, read), n_rows=n_rows, index=checked.index)
