"""Large arrays in .npy files and uncompressed .npz files: they stay there, and rows are read when they are needed.

[Note: large sources] An array whose numbers take `LARGE` bytes or more is not read into memory. All processes of a job
decide by this rule alone, so that they agree. Its rows are read once from the first to the last, in parts, to check
them; the checksum of the data comes from the same pass. Its rows must have more than one number and lie one after
another (C order); all other arrays are read into memory whole. A compressed array is first written to a temporary file
without a name, in parts.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
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
_PART_BYTES = 2**20


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
        if self.numbers.file.private:
            return f"{name} has {taken} and is on disk while it is used, in a temporary file without a name"
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


def npz_array(
    archive: Any, name: str, file: IO[bytes], source: str, written: Callable[[int], OpenFile]
) -> NDArray[Any] | FileArray:
    """Return an array of the open .npz file `file`, which numpy.load has opened as `archive`. If it is large, it stays
    in the file or, if it is compressed there, is in a temporary file of so many bytes, which `written` makes."""
    member = archive.zip.NameToInfo.get(f"{name}.npy")
    large = None
    if member is not None and member.file_size >= LARGE and not member.flag_bits & 1:
        if member.compress_type != zipfile.ZIP_STORED:
            large = _decompressed(archive.zip, member, source, written)
        elif not isinstance(file, BytesIO):
            large = _large_member(file, member, source)
    if large is not None:
        return large
    found: NDArray[Any] = archive[name]
    return found


def _decompressed(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, source: str, written: Callable[[int], OpenFile]
) -> FileArray | None:
    """Write a compressed array to a temporary file; None if it is to be read into memory. The archive compares its
    checksum at the end."""
    with archive.open(member) as start:
        if _stored_header(start) is None:
            return None
    opened, place = written(member.file_size), 0
    with archive.open(member) as content:
        while part := content.read(_PART_BYTES):
            opened.write(part, place)
            place += len(part)
    with open(f"/dev/fd/{opened.descriptor}", "rb") as file:
        return _from_header(file, source, 0, place, None, opened)


def _large_member(file: IO[bytes], member: zipfile.ZipInfo, source: str) -> FileArray | None:
    before = file.tell()
    try:
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER)
        name, extra = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
        start = member.header_offset + _LOCAL_HEADER + name + extra
        return _from_header(file, source, start, start + member.file_size, member.CRC)
    finally:
        file.seek(before)


def _stored_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
    """Read the header of an array, and return its shape and type; None if it is to be read into memory (see [Note:
    large sources]). A damaged header is left to the reader into memory, which says what is wrong."""
    try:
        version = npy.read_magic(file)
        shape, fortran, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
    except Exception:  # NumPy evaluates the header: a damaged one raises errors of Python's parser too
        return None
    if dtype.kind not in "biuf" or fortran or len(shape) < 2 or min(shape) < 1 or math.prod(shape[1:]) == 1:
        return None
    return shape, dtype


def _from_header(
    file: IO[bytes], source: str, start: int, stop: int, crc: int | None, opened: OpenFile | None = None
) -> FileArray | None:
    """Return the array in these bytes of the file; None if it is to be read into memory. `opened` is the same file."""
    if stop - start < LARGE:
        return None
    file.seek(start)
    if (header := _stored_header(file)) is None:
        return None
    shape, dtype = header
    offset, n = file.tell(), math.prod(shape)
    if offset + n * dtype.itemsize != stop:
        raise InvalidData(
            f"{source}: is damaged: its header says {n:,} numbers, but {(stop - offset) // dtype.itemsize:,} follow"
        )
    file.seek(start)
    numbers = FileNumbers(opened or OpenFile(file.fileno(), source), dtype, offset, n)
    return FileArray(numbers=numbers, shape=shape, crc_of_header=zlib.crc32(file.read(offset - start)), crc=crc)
