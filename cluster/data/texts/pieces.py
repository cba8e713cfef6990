"""The text of a source in pieces: memory holds one of them at a time, not the text."""

from __future__ import annotations

import codecs
import io
import json
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from cluster.data.files import open_source
from cluster.data.rules import SourceRules
from coordinator.job.source_names import extension
from stages.errors import InvalidData
from stages.file_numbers import OpenFile

_PART = 2**18
_BOM = codecs.BOM_UTF8


class TextPieces:
    """The text of a file, or of Python's standard library (`stdlib`), which can be read again and again.

    The entries "text" of a .jsonl are joined by line breaks. Raises InvalidData if the file cannot be opened; each
    reading raises it if it is no text in UTF-8, is empty, or has changed since it was opened.
    """

    def __init__(self, source: str, rules: SourceRules | None) -> None:
        self._source = source
        self._file: IO[bytes] | None = None if source == "stdlib" else open_source(source, rules)
        self._state = None
        if self._file is not None and not isinstance(self._file, io.BytesIO):
            self._state = OpenFile(self._file.fileno(), source)

    def __enter__(self) -> TextPieces:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def __iter__(self) -> Iterator[str]:
        """Yield the text from its beginning."""
        if self._file is None:
            yield from _standard_library()
        elif extension(self._source) == ".txt":
            yield from self._decoded(self._file)
        else:
            yield from _entries(self._decoded(self._file), self._source)
        if self._state is not None:
            self._state.require_unchanged()

    def _decoded(self, file: IO[bytes]) -> Iterator[str]:
        file.seek(0)
        start = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
        file.seek(start)
        decoder, place, empty = codecs.getincrementaldecoder("utf-8")(), 0, True
        while True:
            part = file.read(_PART)
            kept = len(decoder.getstate()[0])  # bytes of a character whose end the part before did not have
            try:
                text = decoder.decode(part, final=not part)
            except UnicodeDecodeError as error:
                at = place - kept + error.start
                raise InvalidData(f"{self._source}: is not text in UTF-8: {error.reason} at byte {at}") from None
            if text:
                empty = False
                yield text
            if not part:
                break
            place += len(part)
        if empty:
            raise InvalidData(f"{self._source}: is empty")


def _standard_library() -> Iterator[str]:
    folder = Path(sysconfig.get_paths()["stdlib"])
    for k, path in enumerate(sorted(folder.glob("*.py"))):
        yield "\n" * (k > 0) + path.read_text(encoding="utf-8", errors="replace")


def _entries(pieces: Iterator[str], source: str) -> Iterator[str]:
    """Yield the entries "text" of JSON lines, joined by line breaks. A line may go over several pieces."""
    number, between, unended = 1, "", list[str]()

    def joined(lines: list[str]) -> str:
        nonlocal number, between
        texts = [_of_line(line, k, source) for k, line in enumerate(lines, number) if line.strip()]
        number += len(lines)
        found = between + "\n".join(texts) if texts else ""
        between = "\n" if texts else between
        return found

    for piece in pieces:
        first, *lines = piece.split("\n")
        unended.append(first)
        if lines:
            whole, unended = ["".join(unended), *lines[:-1]], [lines[-1]]
            if text := joined(whole):
                yield text
    if text := joined(["".join(unended)]):
        yield text


def _of_line(line: str, number: int, source: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError, RecursionError):  # RecursionError: nested too deep
        raise InvalidData(f'{source}: line {number} is not a JSON object with an entry "text"') from None
    if not isinstance(text, str):
        raise InvalidData(f'{source}: line {number}: its entry "text" is {json.dumps(text)[:40]}, must be a text')
    utf8(text, f"{source}: line {number}")
    return text


def utf8(text: str, source: str) -> bytes:
    """Return the bytes of a text. Raises InvalidData if UTF-8 cannot hold it."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidData(
            f"{source}: character {text[error.start]!r} at position {error.start + 1} is half of a surrogate pair, "
            "which UTF-8 cannot hold"
        ) from None


def cut_after_lines(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the same text in pieces that end after a single line break, with no space on its other sides."""
    held = list[str]()
    for piece in pieces:
        place = len(piece) - 1
        while (place := piece.rfind("\n", 1, place)) > 0:
            if not piece[place - 1].isspace() and not piece[place + 1].isspace():
                yield "".join([*held, piece[: place + 1]])
                held, piece = [], piece[place + 1 :]
                break
        held.append(piece)
    if held:
        yield "".join(held)
