"""A long sequence of tokens as training rows: windows of `block` tokens, and the tokens that follow each of them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Row i is `tokens[i · stride + shift : i · stride + shift + block]`, indexed like an array of such rows.

    tokens: (n,) integers. Inputs have shift 0, their targets shift 1: row i of the inputs belongs to row i of the
    targets, so there are (n − 1 − block) // stride + 1 rows. A row is copied only when it is read.
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
        """Bytes of the tokens. Inputs and targets share them, so only the inputs count them."""
        return 0 if self.shift else self.tokens.nbytes

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Return a copy of these rows, (number of rows, block); `rows` is a slice or an array of row numbers."""
        numbers = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        places = (numbers * self.stride + self.shift)[:, None] + np.arange(self.block)
        found: NDArray[Any] = self.tokens[places]
        return found

    def checksum(self, crc: int) -> int:
        """Return the CRC-32 `crc`, continued over these rows."""
        crc = zlib.crc32(f"{self.shape}{self.stride}{self.shift}".encode(), crc)
        if self.shift:
            return crc
        little_endian = self.tokens.astype(self.tokens.dtype.newbyteorder("<"), copy=False)
        return zlib.crc32(np.ascontiguousarray(little_endian).data.cast("B"), crc) if len(self.tokens) else crc
