"""The encoding of a text file: found by its first bytes and by what is valid, or given; and its text in UTF-8."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

import numpy as np

from cluster.data.formats.plain_bytes import BufferBytes, PlainBytes, parts
from stages.errors import InvalidData

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_UTF8_LETTER = re.compile(rb"[\xc3-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


def encoding_of(head: bytes) -> str:
    """Return the encoding that the first bytes of a file show: utf-8 or a form of utf-16. What is valid ASCII or UTF-8
    so far is utf-8."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    pairs = np.frombuffer(head[: min(len(head), 4096) // 2 * 2], np.uint8).reshape(-1, 2)
    zeros = (pairs == 0).mean(axis=0) if len(pairs) else np.zeros(2)
    if max(zeros) > 0.5 and min(zeros) < 0.1:  # a text of mostly ASCII, without a mark
        return "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
    return "utf-8"


def is_utf8(head: bytes) -> bool:
    """Whether the bytes are valid UTF-8, but for a character that is cut off at their end."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def one_byte_encoding(content: PlainBytes, source: str) -> str:
    """Return latin-1 or cp1252 for a text that is not UTF-8. They differ in the bytes 80 to 9f only.

    Raises InvalidData if the text has valid letters of UTF-8 too, so that it is damaged or mixed.
    """
    name, offered = "latin-1", "such as data.csv: {encoding: latin-1}"
    line, before = 1, b""
    for part in parts(content):
        if found := _UTF8_LETTER.search(before[-3:] + part):
            line += (before[-3:] + part)[: found.start()].count(b"\n")
            raise InvalidData(f"{source}: line {line:,} is in UTF-8, but others are not; give its encoding, {offered}")
        array = np.frombuffer(part, np.uint8)
        if ((array - 0x80) < 0x20).any():
            name = "cp1252"
        line, before = line + part.count(b"\n"), part
    return name


def in_utf8(content: PlainBytes, encoding: str, source: str) -> PlainBytes:
    """Return the text in UTF-8. Raises InvalidData if the encoding is not known or the text is not in it."""
    import pyarrow as pa

    try:
        if not codecs.lookup(encoding)._is_text_encoding:
            raise LookupError
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise InvalidData(
            f"{source}: data.csv.encoding: got {encoding!r}, must be one such as utf-8 or cp1252"
        ) from None
    out = pa.BufferOutputStream()
    lines = 1
    try:
        for part in _and_end(parts(content)):
            text = decoder.decode(part, final=not part)
            lines += text.count("\n")
            out.write(text.encode())
    except UnicodeError as error:
        here = error.object[: error.start].count(b"\n") if isinstance(error, UnicodeDecodeError) else 0
        raise InvalidData(
            f"{source}: line {lines + here:,} is not in {encoding}; give the right one, such as data.csv: "
            "{encoding: utf-8}"
        ) from None
    return BufferBytes(out.getvalue())


def _and_end(given: Iterator[bytes]) -> Iterator[bytes]:
    yield from given
    yield b""
