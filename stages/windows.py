"""A long sequence of tokens as training rows: windows of `block` tokens, and the tokens that follow each of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.file_numbers import FileNumbers

Tokens = NDArray[Any] | FileNumbers
"""Token numbers (n,), an array or those of a file."""
_PART = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Row i is `tokens[i · stride + shift : i · stride + shift + block]`, indexed like an array of such rows.

    tokens: (n,) integers. Inputs have shift 0, their targets shift 1: row i of the inputs belongs to row i of the
    targets, so there are (n − 1 − block) // stride + 1 rows. A row is copied only when it is read.
    """

    tokens: Tokens
    block: int
    stride: int
    shift: int = 0

    def __len__(self) -> int:
        """The number of rows."""
        return max(0, (len(self.tokens) - 1 - self.block) // self.stride + 1)

    @property
    def ndim(self) -> int:
        """2, as of an array of rows."""
        return 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the tokens."""
        return self.tokens.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, block)."""
        return len(self), self.block

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens in memory; those of a file take none. Inputs and targets share the tokens, so only the
        inputs count them."""
        return 0 if self.shift else self.tokens.nbytes

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Return a copy of these rows, (number of rows, block); `rows` is a slice or an array of row numbers."""
        numbers = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        starts = numbers * self.stride + self.shift
        if isinstance(self.tokens, FileNumbers):
            return self.tokens.read(starts, self.block, self.dtype)
        found: NDArray[Any] = self.tokens[starts[:, None] + np.arange(self.block)]
        return found

    def checksum(self, crc: int) -> int:
        """Return the CRC-32 `crc`, continued over these rows."""
        crc = zlib.crc32(f"{self.shape}{self.stride}{self.shift}".encode(), crc)
        if self.shift:
            return crc
        for _, part in in_parts(self.tokens):
            little_endian = part.astype(part.dtype.newbyteorder("<"), copy=False)
            crc = zlib.crc32(np.ascontiguousarray(little_endian).data.cast("B"), crc)
        return crc


def in_parts(tokens: Tokens) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the tokens in parts, each with the index of its first token. Of a file, one part at a time is in memory."""
    if isinstance(tokens, FileNumbers):
        yield from tokens.parts()
        return
    for start in range(0, len(tokens), _PART):
        yield start, tokens[start : start + _PART]
