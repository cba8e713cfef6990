"""A file on disk for numbers that do not fit into memory. It has no name, so nothing is left of it when this process
ends, however it ends."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cluster.data.array_files import LARGE
from coordinator.texts import size
from stages.errors import InvalidData
from stages.file_numbers import FileNumbers, OpenFile

_IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")
"""Kinds of file systems that keep their files in memory."""
_ROOM_LEFT = 64 * 2**20
LARGE_TABLE = 256 * 2**20
"""Bytes from which on the numbers of a table go to disk (see `cluster.data.tables.stored_tables`)."""


def is_large(n_rows: int, n_columns: int, itemsize: int = 8) -> bool:
    """Whether so many numbers of a table go to disk, with `itemsize` bytes for each."""
    return n_rows * n_columns * itemsize >= LARGE_TABLE


def temporary_file(n_bytes: int, source: str) -> OpenFile:
    """Return an empty file without a name, on disk, in the first of these folders that is: the one for temporary files
    (TMPDIR), /var/tmp, the home directory. `source` is the data source, for messages. Raises InvalidData if the disk
    has no room for `n_bytes`."""
    folder = folder_on_disk()
    try:
        if shutil.disk_usage(folder).free < n_bytes + _ROOM_LEFT:
            raise _no_room(n_bytes, source)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            return OpenFile(file.fileno(), source, private=True)
    except OSError as error:
        raise InvalidData(
            f"{source}: its numbers need a temporary file, which cannot be made in {folder}: {error.strerror}; name "
            "another folder in TMPDIR"
        ) from None


def moved_to_disk(content: BytesIO, source: str) -> IO[bytes]:
    """Return a file without a name, on disk, that begins with these bytes; it can be written on. Raises InvalidData if
    the disk has no room."""
    opened = temporary_file(len(content.getbuffer()), source)
    file = open(f"/dev/fd/{opened.descriptor}", "r+b")  # noqa: SIM115 (the caller closes it)
    file.write(content.getbuffer())
    return file


def require_room(n_bytes: int, source: str, more: int = 0) -> None:
    """Raise InvalidData if the disk has no room for `more` bytes, and LARGE after them, in a temporary file that has
    `n_bytes` so far. Whoever does not know how much will be written calls it again before the next LARGE bytes."""
    if shutil.disk_usage(folder_on_disk()).free < more + LARGE + _ROOM_LEFT:
        raise _no_room(n_bytes + more, source)


def _no_room(n_bytes: int, source: str) -> InvalidData:
    folder = folder_on_disk()
    return InvalidData(
        f"{source}: its numbers need a temporary file of {size(n_bytes, 'up')}, but {folder} has "
        f"{size(shutil.disk_usage(folder).free, 'down')} free; name another folder in TMPDIR, or use fewer columns"
    )


class TemporaryNumbers:
    """A temporary file to which arrays are appended (see `temporary_file`)."""

    def __init__(self, n_bytes: int, source: str) -> None:
        self._open, self._size, self._room = temporary_file(n_bytes, source), 0, n_bytes

    def append(self, array: NDArray[Any]) -> FileNumbers:
        """Write the numbers of an array in C order, and return them as numbers of the file. Raises InvalidData if the
        disk is full."""
        start, left = self._size, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        self._require_room(len(left))
        try:
            self._open.write(left, self._size)
        except OSError:
            raise _no_room(self._size + len(left), self._open.source) from None
        self._size += len(left)
        return FileNumbers(self._open, array.dtype, start, array.size)

    def _require_room(self, n_bytes: int) -> None:
        """Look for room now and then if more is written than was asked for at the beginning."""
        if self._size + n_bytes > self._room:
            require_room(self._size, self._open.source, n_bytes)
            self._room = self._size + n_bytes + LARGE


class GrowingNumbers:
    """Numbers of one type that are appended part by part: in memory, and from LARGE bytes on in a temporary file (see
    `temporary_file`), so that memory holds LARGE bytes of them at most."""

    def __init__(self, source: str) -> None:
        self._source, self._n_bytes = source, 0
        self._parts: list[NDArray[Any]] = []
        self._file: TemporaryNumbers | None = None
        self._first: FileNumbers | None = None

    def append(self, part: NDArray[Any]) -> None:
        """Append an array. Raises InvalidData if the disk has no room."""
        self._parts.append(part)
        self._n_bytes += part.nbytes
        if self._n_bytes >= LARGE:
            self._to_disk()

    def _to_disk(self) -> None:
        self._file = self._file or TemporaryNumbers(self._n_bytes, self._source)
        for part in self._parts:
            written = self._file.append(part)
            self._first = self._first or written
        self._parts = []

    def finish(self) -> NDArray[Any] | FileNumbers:
        """Return all numbers, of one dimension."""
        if self._first is not None:
            return replace(self._first, size=self._n_bytes // self._first.dtype.itemsize)
        return np.concatenate([part.reshape(-1) for part in self._parts]) if self._parts else np.empty(0)


def disk_line(what: str, numbers: FileNumbers) -> str:
    """Return a line for the user about numbers that are on disk while they are used."""
    taken = size(len(numbers) * numbers.dtype.itemsize)
    return f"{what} ({taken}) are on disk while they are used, in a file of {folder_on_disk()} without a name"


def folder_on_disk() -> Path:
    """Return the folder for large temporary files."""
    places = [Path(tempfile.gettempdir()), Path("/var/tmp"), Path.home()]
    usable = [place for place in places if os.access(place, os.W_OK | os.X_OK)]
    return next((place for place in usable if not _is_in_memory(place)), places[0])


def _is_in_memory(folder: Path) -> bool:
    device = os.stat(folder).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        mount, _, kind = line.partition(" - ")
        if mount.split()[2] == wanted:
            return kind.split()[0] in _IN_MEMORY
    return False
