"""How a text of cells is written: what stands before its header, its delimiter, its quote. Pure: it looks at the first
lines alone, and what does not hold for a later line is a problem of that line.

Nothing is guessed: if two delimiters divide the lines equally well, the job file must say which one it is.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coordinator.job.data_section import CsvSection
from stages.errors import InvalidData

DELIMITERS = (",", ";", "\t", "|")
_SHOWN = {"\t": "tab", " ": "space"}
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+\Z")
_SEP = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_MOST_SHOWN = 5
csv.field_size_limit(2**31 - 1)  # a cell may be as long as a text that somebody wants to classify


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How cells are written. `comment` begins a line that is left out; empty if no line is."""

    delimiter: str = ","
    quote: str = '"'
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What stands before the rows. `names` are the cells of the header, None if there is none; `width` is the number of
    cells of a row; `before` is the length of the text before the rows, which has `lines_before` lines. `notes`: what is
    not the default."""

    dialect: Dialect
    names: tuple[str, ...] | None
    width: int
    before: int
    lines_before: int
    notes: tuple[str, ...] = ()


def find_layout(text: str, given: CsvSection, source: str, *, tabs: bool, whole: bool) -> Layout:
    """Return the layout of a file from its first lines.

    `tabs`: the file's name says that the delimiter is a tab. `whole`: `text` is the whole file, so that its last line
    is complete. Raises InvalidData if the file is empty or the layout is not clear.
    """
    lines = _LINE.findall(text)
    comment, skipped, sep = _preamble(lines, given)
    rest = [line for line in lines[skipped:] if not (comment and line.startswith(comment))]
    if not any(line.strip() for line in rest):
        raise InvalidData(f"{source}: {'holds no header and no rows' if lines else 'is empty'}; it must hold a table")
    quote = given.quote or _quote(rest, source)
    delimiter = given.delimiter or sep or _delimiter(rest, quote, source, tabs=tabs, whole=whole)
    dialect = Dialect(delimiter=delimiter, quote=quote, comment=comment)
    first, used = _first_row(rest, dialect, skipped, source)
    if comment and given.comment is None:
        _require_comments(lines[:skipped], first, dialect, source)
    found = given.delimiter is None and delimiter != ("\t" if tabs else ",")
    notes = [f"delimiter {_SHOWN.get(delimiter, delimiter)}"] if found else []
    notes += [f"quote {quote}"] if given.quote is None and quote != '"' else []
    notes += ["the line sep= left out"] if sep else []
    if comment and given.comment is None:
        notes.append(f"lines that begin with {comment} left out")
    header = given.header is not False
    if header and given.header is None:
        _require_names(first, skipped + 1, source)
    taken = skipped + (used if header else 0)
    return Layout(
        dialect=dialect,
        names=tuple(first) if header else None,
        width=len(first),
        before=sum(map(len, lines[:taken])),
        lines_before=taken,
        notes=tuple(notes),
    )


def _preamble(lines: Sequence[str], given: CsvSection) -> tuple[str, int, str]:
    """Return how comments begin, how many lines stand before the header, and the delimiter of a line `sep=`."""
    comment = "#" if given.comment is None else given.comment
    found, sep, skipped = False, "", 0
    for line in lines:
        if comment and line.startswith(comment):
            found = True
        elif not sep and (match := _SEP.fullmatch(line)):
            sep = match[1]
        elif line.strip():
            break
        skipped += 1
    return comment if found or given.comment is not None else "", skipped, sep


def _require_comments(before: Sequence[str], first: Sequence[str], dialect: Dialect, source: str) -> None:
    """Raise InvalidData if the last comment may be the header: it has as many cells as the line after it."""
    mark = dialect.comment
    number, last = max((k, line) for k, line in enumerate(before, 1) if line.startswith(mark))
    if len(first) in [len(next(rows([line], dialect), [])) for line in (last, last[len(mark) :])]:
        raise InvalidData(
            f"{source}: line {number} begins with {mark} and has as many cells as the line after it; write data.csv: "
            f"{{comment: '{mark}'}} if it is a comment, {{comment: ''}} if it names the columns"
        )


def _quote(lines: Sequence[str], source: str) -> str:
    """Return the quote: " but for files whose names all stand in '…'. Raises InvalidData if only some cells do."""
    text = "".join(lines)
    if not _wrapped("'").search(text):
        return '"'
    first = re.split(r"[,;\t|]", next(line for line in lines if line.strip()).strip())
    if all(len(cell) > 2 and cell[0] == cell[-1] == "'" for cell in first) and not _wrapped('"').search(text):
        return "'"
    raise InvalidData(
        f"{source}: some cells stand in '…'; write data.csv: {{quote: \"'\"}} if ' is the quote, {{quote: '\"'}} if it "
        "belongs to the texts"
    )


def _wrapped(quote: str) -> re.Pattern[str]:
    """Return the pattern of a cell that stands in quotes."""
    return re.compile(rf"(?:\A|[,;\t|\r\n]){quote}(?:[^{quote}]|{quote}{quote})*{quote}(?=\Z|[,;\t|\r\n])")


def _delimiter(lines: Sequence[str], quote: str, source: str, *, tabs: bool, whole: bool) -> str:
    """Return the only delimiter that gives every line as many cells as the header. If none does, return the one that
    fits best: then the lines that do not fit are problems."""
    best: tuple[float, str] = (-1.0, "\t" if tabs else ",")
    even: dict[str, int] = {}
    for delimiter in DELIMITERS:
        found = [row for row in rows(lines, Dialect(delimiter=delimiter, quote=quote)) if row]
        if not whole and len(found) > 1:
            found.pop()  # it may be cut off
        width = len(found[0])
        share = sum(len(row) == width for row in found) / len(found)
        if width > 1:
            best = max(best, (share, delimiter))
            if share == 1:
                even[delimiter] = width
    if tabs and "\t" in even:
        return "\t"
    if len(even) > 1:
        ways = " and ".join(f"{_SHOWN.get(one, one)} ({width} cells)" for one, width in even.items())
        first, second = list(even)[:2]
        raise InvalidData(
            f"{source}: its lines can be divided by {ways}; write data.csv: {{delimiter: {_yaml(first)}}} or "
            f"{{delimiter: {_yaml(second)}}}"
        )
    return best[1]


def _yaml(character: str) -> str:
    return '"\\t"' if character == "\t" else f'"{character}"'


def rows(lines: Sequence[str], dialect: Dialect) -> Any:
    """Return a reader of the cells of each row, by the rules that Arrow has too; an empty line gives no cells."""
    return csv.reader(iter(lines), delimiter=dialect.delimiter, quotechar=dialect.quote)


def _first_row(lines: Sequence[str], dialect: Dialect, before: int, source: str) -> tuple[list[str], int]:
    """Return the cells of the first row, and how many lines it takes; `before` lines stand before it."""
    reader = csv.reader(iter(lines), delimiter=dialect.delimiter, quotechar=dialect.quote, strict=True)
    try:
        return next(reader), reader.line_num
    except csv.Error as error:
        raise InvalidData(f"{source}: line {before + 1:,} {quote_problem(error, dialect.quote)}") from None


def quote_problem(error: csv.Error, quote: str) -> str:
    """Return what is wrong with a line on which the csv module finds a quote that does not fit."""
    if "end of data" in str(error):
        return f"begins a text with {quote} that does not end; close it, or write data.csv: {{quote: …}} with another"
    if "expected after" in str(error):
        return (
            f"goes on after a closing {quote}; double a {quote} in a text, or write data.csv: {{quote: …}} with another"
        )
    return f"cannot be read: {error}"


def _require_names(first: Sequence[str], line: int, source: str) -> None:
    names = [name.strip() for name in first if name.strip()]
    if sum(map(_is_number, names)) * 2 > len(names):
        shown = ", ".join(names[:_MOST_SHOWN]) + (", …" if len(names) > _MOST_SHOWN else "")
        raise InvalidData(
            f"{source}: line {line} looks like data, not like names: {shown}; write data.csv: {{header: false}} if the "
            "file has no line of names (its columns are then called c0, c1, …), {header: true} if these are names"
        )


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d[\d.,' ]*|[.,]\d+)([eE][+-]?\d+)?", text) is not None
