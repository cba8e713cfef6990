"""What is in a table's columns: types, empty cells, ranges, the most frequent values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cluster.data.array_files import FileArray
from cluster.data.content import AnyArray, Table
from coordinator.texts import number

Type = Literal["number", "whole number", "text", "yes or no", "date", "other"]
_MOST_VALUES = 3
_PART = 2**22
_MOST_SORTED = 20_000
_MOST_KEPT = 1000
"""The values of a column that are kept by their counts, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnFacts:
    """A column of `rows` cells, of which `empty` are empty. `low`, `high` and `mean` are None if it has no numbers.

    `different` is the number of different values that are not empty. `values` has the most frequent ones as texts with
    their counts, the most frequent first.
    """

    name: str
    type: Type
    rows: int
    empty: int
    different: int
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    values: tuple[tuple[str, int], ...] = ()

    @property
    def is_number(self) -> bool:
        """Whether its cells are numbers, or yes and no."""
        return self.type in ("number", "whole number", "yes or no")

    @property
    def filled(self) -> int:
        """The number of cells that are not empty."""
        return self.rows - self.empty

    @property
    def summary(self) -> str:
        """Its range, or its most frequent values."""
        if not self.filled:
            return "empty"
        if self.type in ("number", "whole number") and self.low is not None and self.high is not None:
            mean = "" if self.mean is None else f", mean {number(self.mean)}"
            return f"{_plain(self.low)} to {_plain(self.high)}{mean}"
        shown = [f"{value} ({count:,})" for value, count in self.values[:_MOST_VALUES]]
        return ", ".join(shown) + (", …" if self.different > _MOST_VALUES else "")

    def document(self) -> dict[str, Any]:
        """Return the facts as plain values."""
        found = {"name": self.name, "type": self.type, "empty": self.empty, "different": self.different}
        if self.low is not None:
            return {**found, "low": self.low, "high": self.high, "mean": self.mean}
        return {**found, "values": dict(self.values[:20])}


def describe(table: Table) -> list[ColumnFacts]:
    """Return the facts of each column, in the table's order."""
    return [_facts(name, column) for name, column in table.columns.items()]


def _facts(name: str, column: Any) -> ColumnFacts:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = _type(column.type)
    if kind == "other":
        return ColumnFacts(name=name, type=kind, rows=len(column), empty=column.null_count, different=0)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if kind in ("number", "whole number"):
        numbers = column if not pa.types.is_decimal(column.type) else column.cast(pa.float64())
        cells = numbers.drop_null()
        cells = cells.filter(pc.is_finite(cells)) if pa.types.is_floating(cells.type) else cells
        ends = pc.min_max(cells).as_py()
        whole = kind == "whole number" or bool(pc.all(pc.equal(pc.floor(cells), cells)).as_py())
        counted = pc.value_counts(cells) if whole else None
        different = len(counted) if counted is not None else pc.count_distinct(cells).as_py()
        return ColumnFacts(
            name=name,
            type="whole number" if whole and len(cells) else "number",
            rows=len(column),
            empty=len(column) - len(cells),
            different=different,
            low=None if ends["min"] is None else float(ends["min"]),
            high=None if ends["max"] is None else float(ends["max"]),
            mean=pc.mean(cells).as_py(),
            values=() if counted is None or different > _MOST_KEPT else _frequent(counted),
        )
    cells = pc.cast(column, pa.string()).drop_null()
    cells = cells.filter(pc.not_equal(cells, ""))
    counted = pc.value_counts(cells)
    return ColumnFacts(
        name=name,
        type=kind,
        rows=len(column),
        empty=len(column) - len(cells),
        different=len(counted),
        values=_frequent(counted),
    )


def _type(kind: Any) -> Type:
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_boolean(kind):
        return "yes or no"
    if types.is_integer(kind):
        return "whole number"
    if types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_temporal(kind):
        return "date"
    if types.is_null(kind) or types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    return "other"


def _frequent(counted: Any) -> tuple[tuple[str, int], ...]:
    """Return values and counts, the most frequent first, equal ones in their order; at most _MOST_KEPT. Of very many
    values, it is open which of equally frequent ones are among them."""
    import pyarrow.compute as pc

    if len(counted) > _MOST_SORTED:
        counted = counted.take(pc.select_k_unstable(counted.field("counts"), _MOST_KEPT, [("", "descending")]))
    found = sorted(
        ((_text(one["values"]), one["counts"]) for one in counted.to_pylist()), key=lambda pair: (-pair[1], pair[0])
    )
    return tuple(found[:_MOST_KEPT])


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) and value.is_integer() else str(value)


def _plain(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() and math.fabs(value) < 1e15 else number(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayFacts:
    """The numbers of an array: the least, the greatest and the mean of the finite ones, and how many are not finite.
    `labels`: the number of classes if they are whole numbers from 0, one a row, each of which occurs often; else
    None."""

    low: float
    high: float
    mean: float
    wrong: int
    labels: int | None = None

    @property
    def summary(self) -> str:
        """The facts as a text."""
        told = f"{_plain(self.low)} to {_plain(self.high)}, mean {number(self.mean)}"
        return told + (f", {self.wrong:,} not finite" if self.wrong else "")


def array_facts(array: AnyArray | FileArray) -> ArrayFacts | None:
    """Return the facts of an array, which is read in parts; None if it has no real numbers."""
    if array.dtype.kind not in "biuf" or not math.prod(array.shape):
        return None
    low, high, total, count, n, whole = math.inf, -math.inf, 0.0, 0, 0, True
    for part in _parts(array):
        finite = part[np.isfinite(part)]
        n += part.size
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            total += float(finite.sum(dtype=np.float64))
            count += finite.size
            whole = whole and bool((finite == np.floor(finite)).all())
    if not count:
        return ArrayFacts(low=math.nan, high=math.nan, mean=math.nan, wrong=n)
    rows = array.shape[0] if array.ndim else 0
    labels = int(high) + 1 if rows == n == count and whole and low >= 0 and high < min(1000, rows / 5) else None
    return ArrayFacts(low=low, high=high, mean=total / count, wrong=n - count, labels=labels)


def _parts(array: AnyArray | FileArray) -> Iterator[AnyArray]:
    if isinstance(array, FileArray):
        yield from (part for _, part, _ in array.parts())
        return
    flat = array.reshape(-1)
    yield from (flat[start : start + _PART] for start in range(0, len(flat), _PART))
