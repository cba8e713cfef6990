"""What a data file holds: arrays, or columns with names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.data.array_files import FileArray

AnyArray = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Arrays:
    """The content of an .npz file or a built-in source. x: (rows, …); y: (rows, …), or None. A large array stays in its
    file. `names` are those of all arrays in the file.

    For images, `shape` is that of each of them (channels, height, width), `classes` are the names of the labels, and
    `said` are lines for the user.
    """

    x: AnyArray | FileArray
    y: AnyArray | FileArray | None
    names: tuple[str, ...] = ("x", "y")
    shape: tuple[int, ...] | None = None
    classes: tuple[str, ...] | None = None
    said: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the user about what was read and what stays in its file."""
        return self.said + tuple(a.note(name) for name, a in (("x", self.x), ("y", self.y)) if isinstance(a, FileArray))


class LazyLines:
    """The lines of a file on which its rows begin, counted as an editor does. Most files have no problem, so `count`,
    which returns them as (rows,) int64, is called when they are first asked for."""

    def __init__(self, count: Callable[[], AnyArray]) -> None:
        self._count = count
        self._lines: AnyArray | None = None

    def __getitem__(self, rows: Any) -> Any:
        """Return the line of a row, or the lines of several rows."""
        return self._all()[rows]

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._all())

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> AnyArray:
        """Return all lines as (rows,) int64."""
        return np.array(self._all(), dtype=dtype, copy=copy)

    def _all(self) -> AnyArray:
        if self._lines is None:
            self._lines = self._count()
        return self._lines


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Table:
    """The content of a file with named columns: pyarrow's columns by name, in the file's order.

    `index` names the columns that are an index by the file's own account. `notes` say what the reader found, such as
    its delimiter. `lines` are the lines of the file on which its rows begin, as an editor counts them; None if it has
    no lines. `place` says where a row of several files is. `finite` are columns of which the reader has seen that each
    cell is a finite number.
    """

    columns: dict[str, Any]
    n_rows: int
    index: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    lines: LazyLines | AnyArray | None = None
    place: Callable[[int], str] | None = None
    finite: frozenset[str] = frozenset()

    def where(self, row: int) -> str:
        """Return where a row is: `line 7` as an editor counts, or `row 6`, from 1, if the file has no lines."""
        if self.place is not None:
            return self.place(row)
        return f"row {row + 1:,}" if self.lines is None else f"line {int(self.lines[row]):,}"
