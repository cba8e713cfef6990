"""Text with a delimiter between the cells: .csv and .tsv."""

from __future__ import annotations

from typing import IO

from cluster.data.content import Table
from cluster.data.formats.columns import table_of
from cluster.data.opening import native_file


def read_delimited(file: IO[bytes], source: str) -> Table:
    """Return the columns of an open file."""
    from pyarrow import csv

    return table_of(csv.read_csv(native_file(file)), source)
