"""Files of Arrow's columns: .feather, .arrow."""

from __future__ import annotations

from typing import IO

from cluster.data.content import Table
from cluster.data.formats.columns import table_of
from cluster.data.opening import native_file


def read_feather(file: IO[bytes], source: str) -> Table:
    """Return the columns of an open .feather file, of either version."""
    from pyarrow import feather

    return table_of(feather.read_table(native_file(file), memory_map=False), source)


def read_arrow(file: IO[bytes], source: str) -> Table:
    """Return the columns of an open .arrow file: Arrow's format of files, or of streams."""
    import pyarrow as pa

    start = file.read(6)
    file.seek(0)
    opened = (pa.ipc.open_file if start == b"ARROW1" else pa.ipc.open_stream)(native_file(file))
    return table_of(opened.read_all(), source)
