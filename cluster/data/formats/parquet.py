"""Parquet files."""

from __future__ import annotations

from typing import IO

from cluster.data.content import Table
from cluster.data.formats.columns import table_of
from cluster.data.opening import native_file


def read_parquet(file: IO[bytes], source: str) -> Table:
    """Return the columns of an open .parquet file."""
    from pyarrow import parquet

    return table_of(parquet.ParquetFile(native_file(file)).read(), source)
