"""Files of token numbers: only the parts in use are read, and memory holds no copy.

.bin             numbers of 16 bits; of 16 or 32 bits after a header of 256 whole numbers that says which
.npy             an array of one dimension
"""

from __future__ import annotations

import io
import os
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from cluster.data.files import one_line
from coordinator.job.source_names import extension
from stages.errors import InvalidData
from stages.file_numbers import FileNumbers, OpenFile
from stages.windows import Tokens, in_parts

MOST_TOKENS = 2**31 - 1
"""The largest vocabulary of a model."""
_HEADER = 256
"""The number of 32-bit numbers before the tokens of some .bin files; the first one says which type follows."""
_MAGIC = {20240520: "<u2", 20240801: "<u4"}


def open_tokens(file: IO[bytes], source: str) -> Tokens:
    """Return the numbers of an open file, which the caller may close afterwards. Raises InvalidData."""
    dtype, offset, announced = _npy_header(file, source) if extension(source) == ".npy" else _bin_header(file)
    n_bytes = file.seek(0, os.SEEK_END) - offset
    if n_bytes % dtype.itemsize:
        raise InvalidData(f"{source}: has {n_bytes:,} bytes, must hold numbers of {8 * dtype.itemsize} bits")
    n = n_bytes // dtype.itemsize
    if announced is not None and n != announced:
        raise InvalidData(f"{source}: is damaged: its header says {announced:,} numbers, but the file holds {n:,}")
    if n == 0:
        return np.empty(0, dtype)
    if isinstance(file, io.BytesIO):  # from a URL: already in memory
        return np.frombuffer(file.getvalue(), dtype, offset=offset)
    return FileNumbers(OpenFile(file.fileno(), source), dtype, offset, n)


def vocabulary_size(tokens: Tokens, source: str) -> int:
    """Return the largest number plus 1. Raises InvalidData for a number that is negative or too large for any model."""
    size = 1
    for start, part in in_parts(tokens):
        if part.min() < 0:
            place = int((part < 0).argmax())
            raise InvalidData(f"{source}: token {part[place]} at position {start + place + 1} is negative")
        if part.max() >= MOST_TOKENS:
            place = int((part >= MOST_TOKENS).argmax())
            raise InvalidData(
                f"{source}: token {part[place]} at position {start + place + 1} is too large, must be below "
                f"{MOST_TOKENS:,}"
            )
        size = max(size, int(part.max()) + 1)
    return size


def require_below(tokens: Tokens, size: int, source: str, *, before: int = 0) -> None:
    """Raise InvalidData for the first number that is not below `size`. `before` is the number of tokens before these
    in the source."""
    for start, part in in_parts(tokens):
        wrong = part >= size
        if wrong.any():
            place = int(wrong.argmax())
            raise InvalidData(
                f"{source}: token {part[place]} at position {before + start + place + 1} is not in the vocabulary "
                f"of {size} tokens"
            )


def _npy_header(file: IO[bytes], source: str) -> tuple[np.dtype[Any], int, int]:
    """Return the type of the numbers, the bytes before them, and how many there are. Raises InvalidData."""
    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
    except Exception as error:  # NumPy evaluates the header: a damaged one raises errors of Python's parser too
        raise InvalidData(f"{source}: cannot be read as .npy: {one_line(error)}") from None
    if len(shape) != 1 or dtype.kind not in "iu":
        raise InvalidData(f"{source}: must hold token numbers in one dimension, is of {dtype} {list(shape)}")
    return dtype, file.tell(), shape[0]


def _bin_header(file: IO[bytes]) -> tuple[np.dtype[Any], int, None]:
    start = file.read(4 * _HEADER)
    magic = int.from_bytes(start[:4], "little") if len(start) == 4 * _HEADER else 0
    return (np.dtype(_MAGIC[magic]), 4 * _HEADER, None) if magic in _MAGIC else (np.dtype("<u2"), 0, None)
