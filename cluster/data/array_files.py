"""Large arrays in .npy files and uncompressed .npz files: they stay there, and rows are read when they are needed.

[Note: large sources] An array whose numbers take `LARGE` bytes or more in its file is not read into memory. All
processes of a job decide by this rule alone, so that they agree. Its rows are read once from the first to the last, in
parts, to check them; the checksum of the data comes from the same pass. Its rows must have more than one number and lie
one after another (C order), uncompressed, in a local file; all other arrays are read into memory whole.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from coordinator.texts import size
from stages.errors import InvalidData
from stages.file_numbers import FileNumbers, OpenFile

LARGE = 64 * 2**20
"""See [Note: large sources]."""
_LOCAL_HEADER = 30
"""Bytes before the name of a member in a zip archive."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FileArray:
    """An array that stays in its file, in C order.

    An archive has a checksum of a member: `crc_of_header` is that of the bytes before the numbers, and `crc` must be
    reached at their end; it is None if the file has no checksum.
    """

    numbers: FileNumbers
    shape: tuple[int, ...]
    crc_of_header: int = 0
    crc: int | None = None

    def __len__(self) -> int:
        """The number of rows."""
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the numbers in the file."""
        return self.numbers.dtype

    @property
    def width(self) -> int:
        """The numbers of a row."""
        return math.prod(self.shape[1:])

    def note(self, name: str) -> str:
        """Return a line for the user about the array of this name."""
        taken = size(len(self.numbers) * self.dtype.itemsize)
        return f"{name} has {taken} and stays in the file: rows are read when they are needed (from {size(LARGE)} on)"

    def parts(self) -> Iterator[tuple[int, NDArray[Any], int]]:
        """Yield the rows in parts, each (rows, width) with the index of its first row and the checksum of all numbers
        so far. Raises InvalidData at the end if the file's own checksum is another."""
        crc = self.crc_of_header
        for start, part in self.numbers.parts(self.width):
            crc = zlib.crc32(part.view(np.uint8).data, crc)
            yield start // self.width, part.reshape(-1, self.width), crc
        if self.crc not in (None, crc):
            raise InvalidData(f"{self.numbers.file.source}: is damaged: the bytes of an array have another checksum")


def large_array(file: IO[bytes], source: str) -> FileArray | None:
    """Return the array of an open .npy file if it is large (see [Note: large sources]); None if it is to be read into
    memory. The caller may close the file. Leaves the position in the file as it is."""
    before = file.tell()
    try:
        return None if isinstance(file, BytesIO) else _from_header(file, source, 0, file.seek(0, 2), None)
    finally:
        file.seek(before)


def npz_array(archive: Any, name: str, file: IO[bytes], source: str) -> NDArray[Any] | FileArray:
    """Return an array of the open .npz file `file`, which numpy.load has opened as `archive`; it stays in the file if
    it is large."""
    member = archive.zip.NameToInfo.get(f"{name}.npy")
    large = None if member is None or isinstance(file, BytesIO) else _large_member(file, member, source)
    if large is not None:
        return large
    found: NDArray[Any] = archive[name]
    return found


def _large_member(file: IO[bytes], member: zipfile.ZipInfo, source: str) -> FileArray | None:
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        return None
    before = file.tell()
    try:
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER)
        name, extra = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
        start = member.header_offset + _LOCAL_HEADER + name + extra
        return _from_header(file, source, start, start + member.file_size, member.CRC)
    finally:
        file.seek(before)


def _from_header(file: IO[bytes], source: str, start: int, stop: int, crc: int | None) -> FileArray | None:
    """Return the array in these bytes of the file; None if it is to be read into memory (see [Note: large sources]).
    A damaged header is left to the reader into memory, which says what is wrong."""
    if stop - start < LARGE:
        return None
    file.seek(start)
    try:
        version = npy.read_magic(file)
        shape, fortran, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
    except Exception:  # NumPy evaluates the header: a damaged one raises errors of Python's parser too
        return None
    offset, n = file.tell(), math.prod(shape)
    if dtype.kind not in "biuf" or fortran or len(shape) < 2 or min(shape) < 1 or math.prod(shape[1:]) == 1:
        return None
    if offset + n * dtype.itemsize != stop:
        raise InvalidData(
            f"{source}: is damaged: its header says {n:,} numbers, but {(stop - offset) // dtype.itemsize:,} follow"
        )
    file.seek(start)
    numbers = FileNumbers(OpenFile(file.fileno(), source), dtype, offset, n)
    return FileArray(numbers=numbers, shape=shape, crc_of_header=zlib.crc32(file.read(offset - start)), crc=crc)
