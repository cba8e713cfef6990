"""A long row of tokens as training rows: windows of `block` tokens, and the tokens that follow each of them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Row i is `tokens[i · stride + shift : i · stride + shift + block]`, as an array of such rows would be indexed.

    tokens: (n,) of whole numbers. Inputs have shift 0, and what they should give has shift 1: row i of the one belongs
    to row i of the other, so there are (n − 1 − block) // stride + 1 rows. Nothing is copied before a row is asked for.
    """

    tokens: NDArray[Any]
    block: int
    stride: int
    shift: int = 0

    def __len__(self) -> int:
        """The number of rows."""
        return max(0, (len(self.tokens) - 1 - self.block) // self.stride + 1)

    @property
    def ndim(self) -> int:
        """As an array of rows has it."""
        return 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the tokens."""
        return self.tokens.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, block)."""
        return len(self), self.block

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens, which inputs and targets share: counted with the inputs."""
        return 0 if self.shift else self.tokens.nbytes

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """(rows asked for, block), a copy; `rows` is a slice or an array of row numbers."""
        numbers = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        places = (numbers * self.stride + self.shift)[:, None] + np.arange(self.block)
        found: NDArray[Any] = self.tokens[places]
        return found

    def checksum(self, crc: int) -> int:
        """The CRC-32 so far, with these rows."""
        crc = zlib.crc32(f"{self.shape}{self.stride}{self.shift}".encode(), crc)
        if self.shift:
            return crc
        little_endian = self.tokens.astype(self.tokens.dtype.newbyteorder("<"), copy=False)
        return zlib.crc32(np.ascontiguousarray(little_endian).data.cast("B"), crc) if len(self.tokens) else crc
