"""One pass over the bytes of a text of cells, for what Arrow's reader does not tell: quotes that do not fit, null
bytes, and whole numbers that begin with 0, such as the key 007."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.data.formats.dialect import Dialect
from cluster.data.formats.plain_bytes import PlainBytes, parts

_PART = 2**16  # larger arrays would get fresh pages of memory each time, which takes longer than the work on them
_LF, _CR, _COMMA, _ZERO = 10, 13, 44, 48

Bytes = NDArray[np.uint8]


@dataclass(slots=True, kw_only=True)
class Scan:
    """What is in a text of cells. `quotes`: a quote; `stray`: a quote that neither begins nor ends a cell, or has no
    partner; `zeros`: perhaps a whole number that begins with 0, or 0x; `comments`: perhaps a line that begins with the
    comment's sign; `null`: the place of the first null byte."""

    quotes: bool = False
    stray: bool = False
    zeros: bool = False
    comments: bool = False
    null: int | None = None


def scan_bytes(content: PlainBytes, start: int, dialect: Dialect) -> Scan:
    """Look at all bytes from `start` on."""
    found = Scan()
    quote, delimiter = dialect.quote.encode(), dialect.delimiter.encode()
    if len(quote) > 1 or len(delimiter) > 1:  # not ASCII: Arrow's reader takes single bytes only
        return found
    around = _Quotes(quote[0], delimiter[0])
    mark, before, place = dialect.comment.encode(), b"\n", start
    for part in parts(content, start, _PART):
        if found.null is None and (at := part.find(b"\0")) >= 0:
            found.null = place + at
        found.zeros = found.zeros or b"x" in part or b"X" in part or _has_zeros(before + part, delimiter[0])
        if around.open or quote in part:
            found.quotes = True
            found.stray = found.stray or around.are_stray(before[-1], np.frombuffer(part, np.uint8))
        if mark and not found.comments:
            text = before + part
            found.comments = b"\n" + mark in text or b"\r" + mark in text
        before, place = part[-max(2, len(mark)) :], place + len(part)
    found.stray = found.stray or around.open
    return found


def _has_zeros(text: bytes, delimiter: int) -> bool:
    """Whether a 0 stands at the beginning of a cell and a digit after it. Cells begin after a delimiter, a quote, a
    space, or the end of a line; all but some delimiters are at most a comma in ASCII."""
    a: Bytes = np.frombuffer(text, np.uint8)
    hits = a[1:-1] == _ZERO
    begins = a[:-2] <= _COMMA
    if delimiter > _COMMA:
        begins |= a[:-2] == delimiter
    hits &= begins
    hits &= (a[2:] - _ZERO) < 10
    return bool(hits.any())


class _Quotes:
    """Quotes by turns begin and end a cell. A doubled quote ends it and begins it again."""

    def __init__(self, quote: int, delimiter: int) -> None:
        self._quote, self._delimiter = quote, delimiter
        self.open = False
        self._end: int | None = None
        """The last byte of the part before if it is a quote that ends a cell: the next byte must fit."""

    def are_stray(self, before: int, part: Bytes) -> bool:
        """Whether a quote of this part does not fit to its neighbours. `before` is the byte before the part."""
        stray = self._end is not None and not self._fits(part[:1]).all()
        places = np.flatnonzero(part == self._quote)
        turn = int(self.open)
        begin, end = places[turn::2], places[1 - turn :: 2]
        previous = np.where(begin > 0, part[np.maximum(begin, 1) - 1], before)
        stray = stray or not self._fits(previous).all()
        last = len(part) - 1
        stray = stray or not self._fits(part[end[end < last] + 1]).all()
        self._end = self._quote if len(end) and end[-1] == last else None
        self.open = bool((len(places) + turn) % 2)
        return bool(stray)

    def _fits(self, neighbours: Any) -> NDArray[np.bool_]:
        fits: NDArray[np.bool_] = np.isin(neighbours, (self._quote, self._delimiter, _LF, _CR))
        return fits
