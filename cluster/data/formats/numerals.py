"""Columns of texts that are numbers as other countries write them: 1,5 and 1.234,56 and 1'234.5.

A file has one convention. It is found from whole columns, never from the first rows, and only if all other conventions
are impossible; else the job file must say which one it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from coordinator.job.data_section import CsvSection
from stages.errors import InvalidData

_DECIMALS, _THOUSANDS = ".,", ("", ",", ".", " ", "'", "_")
_MUST_PROVE = ("", ",", ".")
"""Signs between thousands that are found. A space, ' and _ stand between digits of other texts too: they are found only
with decimals, or given."""
_SIGNS = r"[., '_]"
_NAMES = {",": "comma", ".": "point", " ": "space", "'": "'", "_": "_"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """The signs before decimals and between thousands (empty: none)."""

    decimal: str = "."
    thousands: str = ""

    def notes(self, given: CsvSection) -> list[str]:
        """Return what is neither given nor the default."""
        notes = [f"decimal {_NAMES[self.decimal]}"] if self.decimal != "." and given.decimal is None else []
        found = self.thousands != "" and given.thousands is None
        return notes + ([f"thousands {_NAMES[self.thousands]}"] if found else [])

    def pattern(self) -> str:
        """Return the regular expression of a number."""
        decimal, thousands = re.escape(self.decimal), re.escape(self.thousands)
        whole = rf"(\d+|[1-9]\d{{0,2}}({thousands}\d{{3}})+)" if self.thousands else r"\d+"
        return rf"^[+-]?({whole}({decimal}\d*)?|{decimal}\d+)([eE][+-]?\d+)?$"


def convention_of(given: CsvSection) -> Convention:
    """Return the convention that is given, with the default for what is not."""
    return Convention(decimal=_decimal(given) or ".", thousands=given.thousands or "")


def _decimal(given: CsvSection) -> str | None:
    """The decimal sign that is given; it cannot be the sign between thousands."""
    other = {".": ",", ",": "."}.get(given.thousands or "")
    return given.decimal or other


def numbers_of_texts(
    columns: Mapping[str, Any],
    find_pointed: Callable[[], Sequence[str]],
    given: CsvSection,
    empty: Sequence[str],
    source: str,
) -> tuple[dict[str, Any], Convention]:
    """Return the columns of texts that are numbers, as numbers, and the convention in which they are written.

    `columns` are all columns of texts; `find_pointed` returns the columns that Arrow has read as numbers with decimals
    after a point; `empty` are texts that stand for an empty cell. Raises InvalidData if several conventions are
    possible.
    """
    written = {name: texts for name, column in columns.items() if (texts := _written(column, empty)) is not None}
    if not written:
        return {}, convention_of(given)
    fitting = {name: _fitting(texts, given) for name, texts in written.items()}
    fitting = {name: found for name, found in fitting.items() if found}
    if not fitting:
        return {}, convention_of(given)
    possible = set.intersection(*map(set, fitting.values()))
    if pointed := [] if _decimal(given) else find_pointed():
        possible = {one for one in possible if one.decimal == "."}
    signs = {name: _signs(written[name]) for name in fitting}
    used = set("".join(signs.values()))
    readings: dict[tuple[str | bool, str | bool], Convention] = {}
    for one in sorted(possible, key=lambda one: (one.thousands != "", one.decimal != ".")):
        readings.setdefault((one.decimal in used and one.decimal, one.thousands in used and one.thousands), one)
    if len(readings) != 1:
        raise InvalidData(_unclear(written, fitting, pointed, list(readings.values()), source))
    (convention,) = readings.values()
    return {name: _parsed(written[name], convention) for name in fitting}, convention


def _written(column: Any, empty: Sequence[str]) -> Any:
    """Return the trimmed texts of a column, null for empty ones, if all of them may be numbers; else None."""
    import pyarrow as pa
    import pyarrow.compute as pc

    may = r"^[+-]?[\d., '_]*\d[\d.,]*([eE][+-]?\d+)?$"
    for part in (column.slice(0, 1000), column):  # most columns of texts show in their first rows that they are texts
        texts = pc.utf8_trim_whitespace(pc.replace_substring_regex(part, "[\\x{a0}\\x{202f}]", " "))
        texts = pc.if_else(pc.is_in(texts, value_set=pa.array(empty)), pa.scalar(None, pa.string()), texts)
        if not pc.all(pc.match_substring_regex(texts, may)).as_py():
            return None
    if texts.null_count == len(texts):
        return None
    is_key = pc.and_(pc.match_substring_regex(texts, r"^[+-]?0\d"), pc.invert(pc.match_substring_regex(texts, "[.,]")))
    return None if pc.any(is_key).as_py() else texts


def _fitting(texts: Any, given: CsvSection) -> list[Convention]:
    """Return the conventions in which all texts of a column are numbers."""
    import pyarrow.compute as pc

    found = []
    decimals = [_decimal(given)] if _decimal(given) else list(_DECIMALS)
    thousands = [given.thousands] if given.thousands else list(_THOUSANDS)
    for decimal, between in product(decimals, thousands):
        one = Convention(decimal=str(decimal), thousands=between)
        if decimal == between or not pc.all(pc.match_substring_regex(texts, one.pattern())).as_py():
            continue
        if given.thousands or between in _MUST_PROVE or _is_proven(texts, one):
            found.append(one)
    return found


def _is_proven(texts: Any, one: Convention) -> bool:
    import pyarrow.compute as pc

    both = rf"\d{re.escape(one.thousands)}\d{{3}}{re.escape(one.decimal)}\d"
    return bool(pc.any(pc.match_substring_regex(texts, both)).as_py())


def _signs(texts: Any) -> str:
    import pyarrow.compute as pc

    return "".join(sign for sign in ".,'_ " if pc.any(pc.match_substring(texts, sign)).as_py())


def _parsed(texts: Any, one: Convention) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if one.thousands:
        texts = pc.replace_substring(texts, one.thousands, "")
    if one.decimal != ".":
        texts = pc.replace_substring(texts, one.decimal, ".")
    texts = pc.replace_substring_regex(texts, r"^\+", "")
    if not pc.any(pc.match_substring_regex(texts, "[.eE]")).as_py():
        try:
            return pc.cast(texts, pa.int64())
        except pa.ArrowInvalid:  # larger than 2^63
            pass
    return pc.cast(texts, pa.float64())


def _unclear(
    written: Mapping[str, Any],
    fitting: Mapping[str, Sequence[Convention]],
    pointed: Sequence[str],
    readings: Sequence[Convention],
    source: str,
) -> str:
    import pyarrow.compute as pc

    name = next(iter(fitting))
    texts = written[name]
    text = texts.filter(pc.match_substring_regex(texts, _SIGNS))[0].as_py()
    if readings:
        ways = " or ".join(f"data.csv: {_given(one)}" for one in readings)
        return f"{source}: {text!r} in column {name!r} can be read in more than one way; write {ways}"
    other = pointed[0] if pointed else [*fitting][-1]
    return (
        f"{source}: the numbers of column {name!r}, such as {text!r}, are written in another way than those of column "
        f"{other!r}; write data.csv: {{decimal: ','}} or {{decimal: '.'}}, with thousands if the numbers have them"
    )


def _given(one: Convention) -> str:
    entries = [f'decimal: "{one.decimal}"'] + ([f'thousands: "{one.thousands}"'] if one.thousands else [])
    return f"{{{', '.join(entries)}}}"
