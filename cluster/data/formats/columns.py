"""What all tables have in common: names, an index, and columns of plain types."""

from __future__ import annotations

from typing import Any

from cluster.data.content import Table
from stages.errors import InvalidData


def table_of(table: Any, source: str) -> Table:
    """Return Arrow's table. Raises InvalidData if two columns have one name."""
    names: list[str] = table.column_names
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidData(f"{source}: has several columns called {doubled[0]!r}; give each its own name")
    return Table(columns={name: table.column(name) for name in names}, n_rows=table.num_rows)
