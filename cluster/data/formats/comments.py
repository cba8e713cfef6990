"""Lines of comment between the rows of a text of cells."""

from __future__ import annotations

import io

from cluster.data.formats.dialect import Layout, rows
from cluster.data.formats.plain_bytes import BufferBytes, PlainBytes
from stages.errors import InvalidData


def without_comments(content: PlainBytes, start: int, layout: Layout, source: str, *, given: bool) -> PlainBytes:
    """Return the rows from `start` on, without comments. `given`: the job file says how comments begin; if not, a line
    that may be a row is a problem.

    Raises InvalidData.
    """
    import pyarrow as pa

    dialect, out = layout.dialect, pa.BufferOutputStream()
    line_number, inside = layout.lines_before, False
    with content.file(start) as file:
        for line in io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline=""):
            line_number += 1
            if not inside and line.startswith(dialect.comment):
                if not given and len(next(rows([line], dialect), [])) == layout.width:
                    raise InvalidData(
                        f"{source}: line {line_number:,} begins with {dialect.comment} and has as many cells as a row; "
                        f"write data.csv: {{comment: '{dialect.comment}'}} if it is a comment, {{comment: ''}} if "
                        "it is a row"
                    )
                continue
            inside ^= line.count(dialect.quote) % 2 == 1
            out.write(line.encode("utf-8", "surrogateescape"))
    return BufferBytes(out.getvalue())
