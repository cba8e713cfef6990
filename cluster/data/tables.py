"""Names of a table's columns."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.data.files import Table
from coordinator.job.nearest import closest
from stages.errors import InvalidData


def require_columns(table: Table, names: Sequence[str], source: str) -> None:
    """Raise InvalidData for the first name that is not a column. The error names the nearest column."""
    for name in names:
        if name not in table.columns:
            near = closest(name, table.columns)
            known = ", ".join(list(table.columns)[:8]) + (", …" if len(table.columns) > 8 else "")
            raise InvalidData(
                f"{source}: has no column {name!r}" + (f"; did you mean {near!r}?" if near else f", only {known}")
            )
