"""Arrow's reader of cells: it parses them and infers the types of columns.

Arrow infers a type from all cells of a column, but then keeps the whole text in memory until it is done. So the types
of the first block are tried for all; only if a later cell does not fit, Arrow infers them from everything. Both ways
give the same types: Arrow tries types in a fixed order, and one that fits all cells and is the first to fit the first
block is the first to fit all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from cluster.data.formats.dialect import Layout
from cluster.data.formats.plain_bytes import PlainBytes
from cluster.data.formats.stored_text import LARGE_TEXT, ColumnSeen, StoredColumns, seen_in, stored_columns, whole_lines

EMPTY = (
    *("", "NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None"),
    *("-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN"),
)
"""Cells of a column of numbers, dates or truth values that count as empty."""
_TRUE, _FALSE = ["true", "True", "TRUE"], ["false", "False", "FALSE"]
T = TypeVar("T")
_BLOCK, _MOST_BLOCK = 2**20, 2**30
_KEY = r"^\s*[+-]?0[0-9xX]"


class ArrowCsv:
    """Reads the rows of a text of cells from the byte `start` on. `quotes`: there are quotes, so that a line may end
    inside of a cell."""

    def __init__(
        self,
        content: PlainBytes,
        start: int,
        layout: Layout,
        names: Sequence[str],
        decimal: str,
        *,
        quotes: bool,
        source: str,
    ) -> None:
        self._content, self._start, self._layout, self._source = content, start, layout, source
        self._names, self._decimal, self._quotes = list(names), decimal, quotes
        self.stored: StoredColumns | None = None
        """The columns that were read last, if they are on disk."""
        self.finite: frozenset[str] = frozenset()
        """The columns of float64 without an empty cell, NaN or infinity; known after `keys`."""

    def read(self, as_text: Sequence[str] = (), only: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the columns by name, `only` some, some `as_text`. Raises pyarrow.ArrowInvalid if rows do not fit."""
        import pyarrow as pa
        from pyarrow import csv

        types: dict[str, Any] = dict.fromkeys(as_text, pa.string())
        if self._is_blank():
            return {name: pa.chunked_array([], types.get(name, pa.null())) for name in only or self._names}
        if self._content.size - self._start > 4 * _BLOCK and only is None:
            with self._retried(
                lambda block: csv.open_csv(self._content.native(self._start), **self._options(block, types, only))
            ) as first:
                found = {field.name: field.type for field in first.schema}
            try:
                return self._by_types(found | types)
            except pa.ArrowInvalid:
                pass
        return self._retried(lambda block: self._read(self._content.native(self._start), block, types, only))

    def _by_types(self, types: dict[str, Any]) -> dict[str, Any]:
        """Return all columns, which have these types; those of a large text are mapped from disk."""
        size = self._content.size - self._start
        if size < LARGE_TEXT:
            return self._retried(lambda block: self._read(self._content.native(self._start), block, types))
        self.stored = self._retried(lambda block: stored_columns(self._parts(block, types), size, self._source))
        return self.stored.columns

    def _parts(self, block: int, types: dict[str, Any]) -> Iterator[Any]:
        import pyarrow as pa
        from pyarrow import csv

        if self._quotes or self._layout.width == 1:  # a line may end inside of a cell, or an empty line is a row
            with csv.open_csv(self._content.native(self._start), **self._options(block, types, None)) as reader:
                yield from reader
            return
        with self._content.native(self._start) as file:
            for part in whole_lines(file):
                if part.size > block or part.to_pybytes().strip(b"\r\n"):
                    yield pa.table(self._read(pa.BufferReader(part), block, types))

    def _read(
        self, native: Any, block: int, types: dict[str, Any], only: Sequence[str] | None = None
    ) -> dict[str, Any]:
        from pyarrow import csv

        table = csv.read_csv(native, **self._options(block, types, only))
        return dict(zip(table.column_names, table.columns, strict=True))

    def keys(self, columns: dict[str, Any], *, zeros: bool) -> dict[str, Any]:
        """Return those of the columns that are no numbers, as texts: whole numbers of which one begins with 0 (looked
        for if `zeros`), or that are too large for 64 bits."""
        import pyarrow as pa
        import pyarrow.compute as pc
        from pyarrow import csv

        whole = [name for name, column in columns.items() if zeros and column.type == pa.int64()]
        seen = self._look_at(columns)
        large = [name for name, one in seen.items() if one.large]
        self.finite = frozenset(name for name, one in seen.items() if one.finite)
        if not whole and not large:
            return {}
        doubted, zero, fraction = [*whole, *large], set(), set()
        texts = dict.fromkeys(doubted, pa.string())
        with self._retried(
            lambda block: csv.open_csv(self._content.native(self._start), **self._options(block, texts, doubted))
        ) as reader:
            for batch in reader:
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    if name in whole and pc.any(pc.match_substring_regex(column, _KEY)).as_py():
                        zero.add(name)
                    filled = pc.invert(pc.is_in(pc.utf8_trim_whitespace(column), value_set=pa.array(EMPTY)))
                    other = pc.invert(pc.match_substring_regex(column, r"^\s*[+-]?\d+\s*$"))
                    if name in large and pc.any(pc.and_(filled, other)).as_py():
                        fraction.add(name)
        keys = [name for name in doubted if name in zero or (name in large and name not in fraction)]
        return self.read(as_text=keys, only=keys) if keys else {}

    def _look_at(self, columns: dict[str, Any]) -> dict[str, ColumnSeen]:
        """Return what is in each column of float64."""
        import pyarrow as pa

        if self.stored is not None:
            return self.stored.seen
        return {name: seen_in(column) for name, column in columns.items() if column.type == pa.float64()}

    def _is_blank(self) -> bool:
        if self._content.size - self._start > _BLOCK:
            return False
        with self._content.file(self._start) as file:
            return not file.read().strip(b"\r\n")

    def _options(self, block: int, types: dict[str, Any], only: Sequence[str] | None) -> dict[str, Any]:
        from pyarrow import csv

        dialect = self._layout.dialect
        return {
            "read_options": csv.ReadOptions(column_names=self._names, block_size=block),
            "parse_options": csv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char=dialect.quote,
                newlines_in_values=self._quotes,
                ignore_empty_lines=self._layout.width > 1,
            ),
            "convert_options": csv.ConvertOptions(
                column_types=types,
                include_columns=only,
                null_values=EMPTY,
                true_values=_TRUE,
                false_values=_FALSE,
                decimal_point=self._decimal,
            ),
        }

    def _retried(self, read: Callable[[int], T]) -> T:
        """Call `read` with larger and larger blocks, until a row fits into one."""
        import pyarrow as pa

        block = _BLOCK
        while True:
            try:
                return read(block)
            except pa.ArrowInvalid as error:
                if "straddl" not in str(error) or block > min(self._content.size, _MOST_BLOCK):
                    raise
                block *= 8
