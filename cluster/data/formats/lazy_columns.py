"""Columns of a large file that are read when they are asked for, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


class LazyColumns(dict[str, Any]):
    """Columns by name, as `Table.columns` has them. `read` returns a column of Arrow; it is called each time that a
    column is asked for, so the columns are not in memory together."""

    def __init__(self, names: Iterable[str], read: Callable[[str], Any]) -> None:
        super().__init__(dict.fromkeys(names))
        self._read = read

    def __getitem__(self, name: str) -> Any:
        super().__getitem__(name)  # KeyError
        return self._read(name)

    def pop(self, name: str, *default: Any) -> Any:
        """Read a column, and take it out."""
        if name not in self and default:
            return default[0]
        super().pop(name)
        return self._read(name)

    def values(self) -> Any:
        """Read one column after another."""
        return (self._read(name) for name in self)

    def items(self) -> Any:
        """Read one column after another."""
        return ((name, self._read(name)) for name in self)
