"""The lines on which the rows of a text of cells begin, and the problems of rows. Used only if there is a problem."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import numpy as np

from cluster.data.content import AnyArray
from cluster.data.formats.dialect import Dialect, Layout, quote_problem
from cluster.data.formats.plain_bytes import PlainBytes, parts
from coordinator.texts import counted
from stages.errors import InvalidData

MOST_PROBLEMS = 20
_SHOWN = 40
_LF, _CR = 10, 13


class RowLines:
    """The rows of a text of cells, with the lines on which they begin, as an editor counts them. Comment lines are no
    rows, and empty lines are none if a row has more than one cell."""

    def __init__(self, content: PlainBytes, start: int, layout: Layout) -> None:
        self._content, self._start, self._layout = content, start, layout
        self._line = layout.lines_before
        self.first = 0
        """The line on which the present row begins; 0 before its first line is read."""

    def rows(self) -> Iterator[list[str]]:
        """Yield the cells of each row. Raises csv.Error if a quote does not fit."""
        dialect = self._layout.dialect
        reader = csv.reader(self._lines(dialect), delimiter=dialect.delimiter, quotechar=dialect.quote, strict=True)
        while True:
            self.first = 0
            cells = next(reader, None)
            if cells is None:
                return
            if cells or self._layout.width == 1:
                yield cells

    def _lines(self, dialect: Dialect) -> Iterator[str]:
        with self._content.file(self._start) as file:
            for line in io.TextIOWrapper(file, encoding="utf-8", errors="replace", newline=""):
                self._line += 1
                if self.first == 0:
                    if dialect.comment and line.startswith(dialect.comment):
                        continue
                    self.first = self._line
                yield line


def count_lines(content: PlainBytes, start: int, layout: Layout, *, simple: bool) -> AnyArray:
    """Return the line on which each row begins. `simple`: there are no quotes and no comments, which is faster."""
    if simple:
        return _count_simple(content, start, layout)
    reader = RowLines(content, start, layout)
    return np.array([reader.first for _ in reader.rows()], dtype=np.int64)


def _count_simple(content: PlainBytes, start: int, layout: Layout) -> AnyArray:
    found, line, filled, cr = [], layout.lines_before, False, False
    for part in parts(content, start):
        a = np.frombuffer(part, np.uint8)
        is_cr = a == _CR
        after_cr = np.concatenate(([cr], is_cr[:-1]))
        ends = is_cr | ((a == _LF) & ~after_cr)  # the LF of a CR LF belongs to the end before it
        text = ~(is_cr | (a == _LF))
        places = np.flatnonzero(ends)
        texts = np.add.reduceat(text, places) if len(places) else np.empty(0, int)  # after each end, up to the next
        first = filled or bool(text[: places[0]].any() if len(places) else text.any())
        if len(places):
            full = np.concatenate(([first], texts[:-1] > 0))
            numbers = np.arange(line + 1, line + 1 + len(places))
            found.append(numbers if layout.width == 1 else numbers[full])
            line, filled = line + len(places), bool(texts[-1])
        else:
            filled = first
        cr = bool(is_cr[-1])
    return np.concatenate([*found, np.array([line + 1] if filled else [], dtype=np.int64)]).astype(np.int64)


def raise_row_problems(content: PlainBytes, start: int, layout: Layout, source: str) -> None:
    """Raise InvalidData with a line for each row that has more or fewer cells than the header, and for a quote that
    does not fit; up to MOST_PROBLEMS, then their count. Return if there is none."""
    reader = RowLines(content, start, layout)
    problems: list[str] = []
    total, width = 0, layout.width
    what = "the header has" if layout.names is not None else "the first row has"
    try:
        for cells in reader.rows():
            if len(cells) != width and (cells or width > 1):
                total += 1
                if total <= MOST_PROBLEMS:
                    problems.append(
                        f"{source}: line {reader.first:,} has {counted(len(cells), 'cell')}, {what} {width}"
                    )
    except csv.Error as error:
        total += 1
        problems.append(f"{source}: line {reader.first:,} {quote_problem(error, layout.dialect.quote)}")
    if not total:
        return
    problems[0] += "" if problems[0].endswith("another") else _hint(layout)
    if total > len(problems):
        problems.append(f"{source}: and {total - len(problems):,} more lines with another number of cells")
    raise InvalidData("\n".join(problems))


def _hint(layout: Layout) -> str:
    delimiter = layout.dialect.delimiter
    if layout.width == 1 and delimiter == ",":
        return '; if , is the decimal sign, write data.csv: {delimiter: ";", decimal: ","}'
    shown = "a tab" if delimiter == "\t" else delimiter
    return (
        f"; quote texts in which {shown} stands, or write data.csv: {{delimiter: …}} if another one divides the cells"
    )


def line_of(content: PlainBytes, place: int) -> int:
    """Return the line of a byte."""
    line = 1
    with content.file() as file:
        left = place
        while left and (part := file.read(min(left, 2**22))):
            line, left = line + part.count(b"\n"), left - len(part)
    return line
