"""Reads text as tokens: files of text or token numbers, and the text that comes with every Python.

.txt             text, made into tokens
.jsonl           the entry "text" of each line, joined by line breaks and made into tokens
.bin             token numbers of 16 bits; of 16 or 32 bits after a header of 256 whole numbers that says which
.npy             token numbers, an array of one dimension
stdlib           the text of the modules in Python's standard library, one after another
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.data.files import open_source
from cluster.data.rules import SourceRules
from cluster.data.temporary import GrowingNumbers
from cluster.data.texts import tokenizer
from cluster.data.texts.pieces import TextPieces, cut_after_lines, utf8
from cluster.data.texts.token_files import open_tokens, require_below, vocabulary_size
from coordinator import run_files
from coordinator.job.data_section import DataSection
from coordinator.job.source_names import extension
from coordinator.job.spec import JobSpec
from stages.data import Dataset
from stages.errors import InvalidData
from stages.file_numbers import FileNumbers
from stages.windows import Tokens, Windows, in_parts

Numbers = NDArray[Any]
TOKENIZER = "tokenizer"
"""The kind of a vocabulary from a tokenizer's file."""
_ALL_CHARACTERS = 0x110000
"""The characters of Unicode."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The meaning of token numbers. By `kind` they are `characters` in their order, bytes, tokens of a `tokenizer` (the
    text of its file), or numbers without a meaning. `size` is the number of tokens."""

    kind: str
    size: int
    characters: str = ""
    tokenizer: str = ""

    @property
    def n_known(self) -> int:
        """How many tokens stand for something. A network may have outputs for more; these must not be drawn."""
        return len(self.characters) if self.kind == "characters" else self.size

    def encode(self, text: str, source: str, start: int = 0) -> Numbers:
        """Return the token numbers of a text, or of a piece of it from the character `start` on. Raises InvalidData if
        the vocabulary does not have all of it."""
        if self.kind == "bytes":
            return np.frombuffer(utf8(text, source), dtype=np.uint8)
        if self.kind == "characters":
            found = _places(self.characters)[_codes(text)]
            if len(found) and found.min() < 0:
                place = int((found < 0).argmax())
                raise InvalidData(
                    f"{source}: character {text[place]!r} at position {start + place + 1} is not in the vocabulary of "
                    f"{self.size} characters that the model was trained on"
                )
            return found.astype(np.uint16 if self.size <= 65_536 else np.uint32)
        if self.kind == "numbers":
            return _numbers_of(text, self.size, source)
        utf8(text, source)
        return tokenizer.encode(self.tokenizer, text, self.size, source)

    def decode(self, tokens: Numbers) -> str:
        """Return the text of token numbers."""
        if self.kind == "bytes":
            return tokens.astype(np.uint8).tobytes().decode(errors="replace")
        if self.kind == "characters":
            return "".join(self.characters[n] for n in tokens.tolist())
        if self.kind == "numbers":
            return " ".join(map(str, tokens.tolist()))
        return tokenizer.decode(self.tokenizer, tokens)

    def number_of(self, token: str) -> int | None:
        """Return the number of a tokenizer's token; None if there is no tokenizer or no such token."""
        return tokenizer.number_of(self.tokenizer, token) if self.tokenizer else None

    def n_bytes(self, tokens: Numbers) -> int | None:
        """Return the bytes of the text (UTF-8) of token numbers; None if the numbers have no text."""
        if self.kind == "numbers":
            return None
        if self.kind == "bytes":
            return len(tokens)
        if self.kind == "characters":
            sizes = np.array([len(character.encode(errors="surrogatepass")) for character in self.characters])
            return int(sizes[tokens].sum())
        return len(self.decode(tokens).encode())

    def document(self) -> dict[str, Any]:
        """Return the vocabulary as plain values for the run directory, which has the tokenizer in a separate file."""
        return {"tokens": self.kind, "size": self.size, "characters": self.characters}

    @staticmethod
    def from_document(document: dict[str, Any], folder: Path) -> Vocabulary:
        """Return the vocabulary from the result of `document` and a run directory's tokenizer. Raises InvalidData,
        OSError."""
        kind, size, characters = str(document["tokens"]), int(document["size"]), str(document["characters"])
        if kind != TOKENIZER and extension(kind) != ".json":
            return Vocabulary(kind, size, characters)
        # older versions stored its path as the kind
        path = folder / (run_files.TOKENIZER if kind == TOKENIZER else Path(kind).name)
        return Vocabulary(TOKENIZER, size, tokenizer=_tokenizer_text(path.read_bytes(), str(path)))


def load_text(spec: JobSpec, rules: SourceRules | None = None) -> tuple[Dataset, Dataset, Vocabulary]:
    """Return training rows, validation rows and the vocabulary. If `data.validation` is a share or a
    number of rows, validation gets the last tokens. Raises InvalidData."""
    data = spec.data
    if data.block is None:
        raise InvalidData(f"{data.source}: data.block is missing: the number of tokens in a row, such as 64")
    tokens, vocabulary = _read(data.source, data.tokens, None, rules)
    if isinstance(data.validation, str):
        held_out, _ = _read(data.validation, data.tokens, vocabulary, rules)
    else:
        n = len(tokens) - _held_out(data, len(tokens))
        tokens, held_out = tokens[:n], tokens[n:]
    stride = 1 if data.windows == "random" else data.block
    train, validation = _rows(tokens, data.block, stride), _rows(held_out, data.block, data.block)
    for rows, part, kind, source in (
        (train, tokens, "training", data.source),
        (validation, held_out, "validation", data.validation_source),
    ):
        if not len(rows) and not (kind == "validation" and data.validation == 0):
            raise _too_few(
                source, f"{len(part)} tokens for {kind}", data.block, "give more text, or a smaller data.block"
            )
    return train, validation, vocabulary


def _held_out(data: DataSection, n_tokens: int) -> int:
    """Return how many of the last tokens are for validation: a share, or as many as a number of rows needs, each with
    the token after it."""
    assert not isinstance(data.validation, str), "a second source splits nothing"
    if isinstance(data.validation, int):
        return min(n_tokens, data.validation * (data.block or 1) + 1) if data.validation else 0
    return round(data.validation * n_tokens)


def text_rows(spec: JobSpec, source: str, vocabulary: Vocabulary) -> Dataset:
    """Return all blocks of another source as rows, with the vocabulary of a run. Raises InvalidData."""
    block = spec.data.block
    assert block is not None, "a run on text has a block"
    tokens, _ = _read(source, spec.data.tokens, vocabulary, None)
    rows = _rows(tokens, block, block)
    if not len(rows):
        raise _too_few(source, f"{len(tokens)} tokens", block, "give more text")
    return rows


def _too_few(source: str, tokens: str, block: int, hint: str) -> InvalidData:
    return InvalidData(f"{source}: {tokens} are too few for a row of {block} tokens and the token after it; {hint}")


def target_bytes(rows: Dataset, vocabulary: Vocabulary | None) -> int | None:
    """Return the bytes of the predicted text of all blocks, one after another. None if they are not known."""
    y = rows.y
    if vocabulary is None or vocabulary.kind == "numbers" or not isinstance(y, Windows) or y.stride != y.block:
        return None
    tokens = y.tokens[y.shift : y.shift + len(y) * y.block]
    if vocabulary.kind == TOKENIZER:  # the text of a token may depend on its neighbours
        return vocabulary.n_bytes(tokens.whole() if isinstance(tokens, FileNumbers) else tokens)
    return sum(vocabulary.n_bytes(part) or 0 for _, part in in_parts(tokens))


def _rows(tokens: Tokens, block: int, stride: int) -> Dataset:
    return Dataset(x=Windows(tokens, block, stride), y=Windows(tokens, block, stride, shift=1))


def _read(
    source: str, kind: str | None, known: Vocabulary | None, rules: SourceRules | None
) -> tuple[Tokens, Vocabulary]:
    if source != "stdlib" and extension(source) in (".bin", ".npy"):
        with open_source(source, rules) as file:
            tokens = open_tokens(file, source)
        size = vocabulary_size(tokens, source)
        if known is not None and size > known.size:
            require_below(tokens, known.size, source)
        return tokens, known or Vocabulary("numbers", size)
    with TextPieces(source, rules) as text:
        vocabulary = known or _vocabulary(text, kind or "characters", rules)
        return _encoded(text, vocabulary, source), vocabulary


def _encoded(text: TextPieces, vocabulary: Vocabulary, source: str) -> Tokens:
    """Return the token numbers of a text. From 64 MiB on they are on disk."""
    pieces: Iterable[str] = text
    if vocabulary.kind == TOKENIZER and tokenizer.can_cut(vocabulary.tokenizer):
        pieces = cut_after_lines(text)
    elif vocabulary.kind not in ("characters", "bytes"):
        pieces = ("".join(text),)  # a token may go over any two pieces
    tokens, start = GrowingNumbers(source), 0
    for piece in pieces:
        tokens.append(vocabulary.encode(piece, source, start))
        start += len(piece)
    return tokens.finish()


def _vocabulary(text: TextPieces, kind: str, rules: SourceRules | None) -> Vocabulary:
    if kind == "bytes":
        return Vocabulary("bytes", 256)
    if kind == "characters":
        seen = np.zeros(_ALL_CHARACTERS, dtype=bool)
        for piece in text:
            seen[_codes(piece)] = True
        characters = "".join(map(chr, np.flatnonzero(seen).tolist()))
        return Vocabulary("characters", max(2, len(characters)), characters)
    return read_tokenizer(kind, rules)


def read_tokenizer(path: str, rules: SourceRules | None = None) -> Vocabulary:
    """Return the vocabulary of a tokenizer.json. Raises InvalidData."""
    with open_source(path, rules) as file:
        content = _tokenizer_text(file.read(), path)
    return Vocabulary(TOKENIZER, tokenizer.size_of(content, path), tokenizer=content)


def _tokenizer_text(content: bytes, path: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidData(f"{path}: is no tokenizer.json: {error.reason} at byte {error.start}") from None


def _codes(text: str) -> Numbers:
    """Return the numbers that Unicode gives to the characters."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _numbers_of(text: str, size: int, source: str) -> Numbers:
    """Return the numbers of a text such as `12 7 3`, which `decode` writes. Raises InvalidData."""
    try:
        found = np.array([int(word) for word in text.split()], dtype=np.int64)
    except (ValueError, OverflowError):
        raise InvalidData(
            f"{source}: the model was trained on token numbers; give some such as '12 7 3', got {text[:40]!r}"
        ) from None
    wrong = (found < 0) | (found >= size)
    if wrong.any():
        place = int(wrong.argmax())
        raise InvalidData(
            f"{source}: token {found[place]} at position {place + 1} is not in the vocabulary of {size} tokens"
        )
    return found


@lru_cache(maxsize=2)
def _places(characters: str) -> Numbers:
    """Return for each character of Unicode its place in `characters`, -1 if it is not there."""
    found = np.full(_ALL_CHARACTERS, -1, dtype=np.int32)
    found[_codes(characters)] = np.arange(len(characters))
    return found
