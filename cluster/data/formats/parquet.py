"""Parquet files. Of a large one, a column is read when it is asked for."""

from __future__ import annotations

from typing import IO, Any

from cluster.data.content import Table
from cluster.data.formats.columns import table_of
from cluster.data.formats.lazy_columns import LazyColumns
from cluster.data.opening import native_file
from cluster.data.temporary import is_large


def read_parquet(file: IO[bytes], source: str) -> Table:
    """Return the columns of an open .parquet file."""
    from pyarrow import parquet

    opened = parquet.ParquetFile(native_file(file))
    n_rows, schema = opened.metadata.num_rows, opened.schema_arrow
    if not is_large(n_rows, len(schema.names)):
        return table_of(opened.read(), source)
    checked = table_of(schema.empty_table(), source)

    def read(name: str) -> Any:
        return opened.read(columns=[name]).column(name)

    return Table(columns=LazyColumns(checked.columns, read), n_rows=n_rows, index=checked.index)
