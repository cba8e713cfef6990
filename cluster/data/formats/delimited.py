"""Text with a delimiter between the cells: .csv, .tsv, also compressed.

Arrow parses the cells. The type of a column follows from all of its cells, never from the first ones, so that it does
not depend on the size of the file or on how many threads read it. Texts stay as they are; a column of whole numbers of
which one begins with 0, such as 007, stays text, because a key is not a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import IO, Any

import numpy as np

from cluster.data.content import LazyLines, Table
from cluster.data.formats.arrow_csv import EMPTY, ArrowCsv
from cluster.data.formats.columns import INDEX_NAME, header_names, require_single, table_of
from cluster.data.formats.comments import without_comments
from cluster.data.formats.dialect import Layout, find_layout
from cluster.data.formats.encodings import encoding_of, in_utf8, is_utf8, one_byte_encoding
from cluster.data.formats.numerals import convention_of, numbers_of_texts
from cluster.data.formats.plain_bytes import PlainBytes, plain_bytes
from cluster.data.formats.row_lines import count_lines, line_of, raise_row_problems
from cluster.data.formats.scan import Scan, scan_bytes
from coordinator.job.data_section import CsvSection
from stages.errors import InvalidData

_HEAD, _MOST_HEAD = 2**18, 2**30
_BOM = b"\xef\xbb\xbf"

_LEAST_WITHOUT_EXPONENT = 1e-4


class _NotUtf8(Exception):
    """A cell is not valid UTF-8."""


def read_delimited(
    file: IO[bytes],
    source: str,
    given: CsvSection | None,
    most_bytes: int | None,
    *,
    tabs: bool,
    as_text: Sequence[str] = (),
) -> Table:
    """Return the columns of an open file. `given` is what the job file says of its dialect; what it does not say is
    found and said in the notes. `tabs`: the file's name says that its delimiter is a tab. `as_text` are columns whose
    cells stay texts, whatever they are.

    Raises InvalidData with a line for each problem if the dialect is not clear or the rows do not fit to it.
    """
    given = given or CsvSection()
    content, compression = plain_bytes(file, source, most_bytes)
    if content.size == 0:
        raise InvalidData(f"{source}: is empty; it must hold a table")
    encoding = given.encoding or encoding_of(_head(content, 0, _HEAD))
    if given.encoding is None and encoding == "utf-8" and not is_utf8(_head(content, 0, _HEAD)):
        encoding = one_byte_encoding(content, source)
    try:
        return _Text(content, encoding, given, source, tabs).read(compression, as_text)
    except _NotUtf8:
        if given.encoding is not None:
            raise InvalidData(
                f"{source}: is not in {given.encoding}; give its encoding, as in data.csv: {{encoding: …}}"
            ) from None
        return _Text(content, one_byte_encoding(content, source), given, source, tabs).read(compression, as_text)


def _head(content: PlainBytes, start: int, size: int) -> bytes:
    with content.file(start) as file:
        return file.read(size)


class _Text:
    """A text of cells of a known encoding."""

    def __init__(self, content: PlainBytes, encoding: str, given: CsvSection, source: str, tabs: bool) -> None:
        plain = encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig", "ascii", "us-ascii")
        self._content = content if plain else in_utf8(content, encoding, source)
        self._encoding = None if plain else encoding
        self._given, self._source = given, source
        self._layout, self._start = self._find_layout(tabs)

    def _find_layout(self, tabs: bool) -> tuple[Layout, int]:
        """Return the layout, and the place of the first row's first byte."""
        size, content = _HEAD, self._content
        skipped = len(_BOM) if _head(content, 0, len(_BOM)) == _BOM else 0
        while True:
            head = _head(content, skipped, size)
            whole = skipped + len(head) >= content.size
            if whole or head.count(b"\n") + head.count(b"\r") > 20 or size >= _MOST_HEAD:
                break
            size *= 4  # a line may be long: it has a name for each of 143,797 genes
        if not whole:
            head = head[: max(head.rfind(b"\n"), head.rfind(b"\r")) + 1] or head
        try:
            text = head.decode()
        except UnicodeDecodeError:
            raise _NotUtf8 from None
        layout = find_layout(text, self._given, self._source, tabs=tabs, whole=whole)
        return layout, skipped + len(text[: layout.before].encode())

    def read(self, compression: str | None, as_text: Sequence[str]) -> Table:
        """Return the table. Raises _NotUtf8, InvalidData."""
        import pyarrow as pa

        layout, source, given = self._layout, self._source, self._given
        names, nameless = header_names(layout.names or [f"c{k}" for k in range(layout.width)])
        require_single(names, source)
        scanned = scan_bytes(self._content, self._start, layout.dialect)
        if scanned.null is not None:
            line = line_of(self._content, scanned.null)
            raise InvalidData(f"{source}: line {line:,} has a null byte, so the file is damaged, or no text; mend it")
        if scanned.stray:
            raise_row_problems(self._content, self._start, layout, source)
        columns = self._columns(names, scanned, as_text)
        if any(column.type == pa.binary() for column in columns.values()):
            raise _NotUtf8
        notes = [
            f"column {name!r} is text, since its whole numbers begin with 0 or are too large" for name in self._keys
        ]
        fixed = {*self._keys, *as_text}
        texts = {name: one for name, one in columns.items() if one.type == pa.string() and name not in fixed}
        numbers, convention = numbers_of_texts(texts, lambda: _pointed(columns), given, EMPTY, source)
        columns |= numbers
        found = [*layout.notes, *convention.notes(given)]
        found += [what for what in (self._encoding if given.encoding is None else None, compression) if what]
        notes = [f"read as: {', '.join(found)}"] * bool(found) + notes
        columns, more = _without_nameless(columns, nameless, source)
        if layout.names is None:
            more.append(f"the columns are called {names[0]} to {names[-1]}, since the file has no line of names")
        table = table_of(pa.table(columns), source, notes=[*notes, *more], lines=self._lines(scanned))
        columns = table.columns if self._stored is None else self._stored.one_at_a_time(table.columns)
        return replace(table, columns=columns, finite=self._finite)

    def _columns(self, names: list[str], scanned: Scan, as_text: Sequence[str]) -> dict[str, Any]:
        """Return the columns by name, as Arrow infers them; keys stay texts."""
        import pyarrow as pa

        content, start, layout = self._content, self._start, self._layout
        if scanned.comments:
            given = self._given.comment is not None
            content, start = without_comments(content, start, layout, self._source, given=given), 0
        decimal = convention_of(self._given).decimal
        reader = ArrowCsv(content, start, layout, names, decimal, quotes=scanned.quotes, source=self._source)
        try:
            columns = reader.read(as_text)
            keys = reader.keys(columns, zeros=scanned.zeros)
        except pa.ArrowInvalid:
            raise_row_problems(self._content, self._start, layout, self._source)
            raise
        self._keys, self._stored = tuple(keys), reader.stored
        self._finite = reader.finite - {*keys}
        return columns | keys

    def _lines(self, scanned: Scan) -> LazyLines:
        simple = not scanned.quotes and not scanned.comments
        return LazyLines(lambda: count_lines(self._content, self._start, self._layout, simple=simple))


def _pointed(columns: Mapping[str, Any]) -> list[str]:
    """Return the columns of numbers in which a cell must have a point, as 0.5 and 1.000 have; 1e-05 has none."""
    import pyarrow as pa

    return [name for name, column in columns.items() if column.type == pa.float64() and _has_point(column)]


def _has_point(column: Any) -> bool:
    values = column.drop_null().to_numpy()
    parts = values[np.isfinite(values) & (values != np.floor(values))]
    if len(parts):
        return bool((np.abs(parts) >= _LEAST_WITHOUT_EXPONENT).any()) or any(
            "." in repr(v) for v in parts[:1000].tolist()
        )
    return bool((np.abs(values) < 2.0**63).all())  # whole numbers would have been read as such


def _without_nameless(
    columns: dict[str, Any], nameless: Sequence[str], source: str
) -> tuple[dict[str, Any], list[str]]:
    """Return the columns without those that have neither a name nor a filled cell, and lines about columns without a
    name. Raises InvalidData for one that has cells, unless it is the first, which is an index."""
    notes = []
    for name in nameless:
        if name == INDEX_NAME:
            notes.append(f"the first column has no name, so it is an index, called {name!r}")
        elif _is_empty(columns[name]):
            notes.append(f"{name} has neither a name nor cells: left out")
            columns = {other: one for other, one in columns.items() if other != name}
        else:
            raise InvalidData(f"{source}: {name} has no name; give it one in the first line")
    return columns, notes


def _is_empty(column: Any) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.type == pa.string():
        return pc.all(pc.equal(column, "")).as_py() is not False
    return bool(column.null_count == len(column))
