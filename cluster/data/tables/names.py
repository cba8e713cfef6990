"""Names of a table's columns."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.data.files import Table
from coordinator.job.nearest import closest
from coordinator.texts import some
from stages.errors import InvalidData

_MOST = 20


def require_columns(table: Table, names: Sequence[str], source: str) -> None:
    """Raise InvalidData, with a line for each name that is not a column, and the nearest column."""
    unknown = [name for name in dict.fromkeys(names) if name not in table.columns]
    lines = []
    for name in unknown[:_MOST]:
        near = closest(name, table.columns)
        hint = f"; did you mean {near!r}?" if near else f", only {some(list(table.columns), 8)}"
        lines.append(f"{source}: has no column {name!r}{hint}")
    if len(unknown) > _MOST:
        lines.append(f"{source}: and {len(unknown) - _MOST:,} more unknown columns")
    if lines:
        raise InvalidData("\n".join(lines))
