"""Numbers of a file that may be larger than memory: they are read when they are needed, and memory keeps none of them.

[Note: read, not mapped] The file is read at given places (pread) and not mapped into memory, for three reasons: if a
mapped file is cut short, the process that touches it is killed without a word; the pages read of a mapping count as the
process's memory until they are released; and for rows in random order both take about the same time, 1 µs a row.
"""

from __future__ import annotations

import os
import time
import weakref
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.errors import InvalidData

_PART_BYTES = 2**21
"""Bytes of a part, when a whole file is read."""
_GROUP_BYTES = 2**20
"""Bytes of the rows that are read, then converted, together."""
_LATELY_NS = 2 * 10**9
"""File systems keep times in steps of up to 2 seconds."""


class OpenFile:
    """A file that stays open as long as its numbers are in use. It must not change: it is neither copied nor locked.

    `descriptor` is duplicated, so that the caller may close its own. A file that has no other name, because this
    process made it for itself, is `private`: nobody can change it.
    """

    def __init__(self, descriptor: int, source: str, *, private: bool = False) -> None:
        self.descriptor, self.source = os.dup(descriptor), source
        weakref.finalize(self, os.close, self.descriptor)
        self.private = private
        self._found = self._state()

    def _state(self) -> tuple[int, int]:
        found = os.fstat(self.descriptor)
        return found.st_size, found.st_mtime_ns

    def identity(self) -> str | None:
        """Return a text that no other content of a file of this machine has had since it was started. None if the file
        was changed so lately that a further change might leave its times as they are."""
        found = os.fstat(self.descriptor)
        if self.private or time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < _LATELY_NS:
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        times = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        return " ".join(map(str, (boot, *times)))

    def require_unchanged(self) -> None:
        """Raise InvalidData if the file's size or its time of change is another one than when it was opened."""
        if self.private:
            return
        now = self._state()
        if now[0] < self._found[0]:
            raise self._cut_short(now[0])
        if now != self._found:
            raise InvalidData(
                f"{self.source}: was changed while it was in use; leave a job's data as it is until the job has ended"
            )

    def fill(self, buffer: memoryview, place: int) -> None:
        """Read bytes from `place` on until the buffer is full. Raises InvalidData if the file ends before."""
        while len(buffer):
            n = os.preadv(self.descriptor, (buffer,), place)
            if n == 0:
                raise self._cut_short(place)
            buffer, place = buffer[n:], place + n

    def write(self, part: bytes | memoryview, place: int) -> None:
        """Write bytes from `place` on into a file that is `private`. Raises OSError if the disk is full."""
        left = memoryview(part).cast("B")
        while len(left):
            n = os.pwrite(self.descriptor, left, place)
            left, place = left[n:], place + n

    def many(self, places: Sequence[int], n_bytes: int) -> bytes:
        """Return the bytes at all of these places, one after another. Raises InvalidData if the file ends before."""
        pread, descriptor = os.pread, self.descriptor  # once, and not for each row
        found = b"".join([pread(descriptor, n_bytes, place) for place in places])
        if len(found) != len(places) * n_bytes:
            raise self._cut_short(os.fstat(descriptor).st_size)
        return found

    def _cut_short(self, size: int) -> InvalidData:
        return InvalidData(
            f"{self.source}: was cut short while it was in use, from {self._found[0]:,} bytes to {size:,}; "
            "leave a job's data as it is until the job has ended"
        )


@dataclass(frozen=True, slots=True, eq=False)
class FileNumbers:
    """`size` numbers of a file, one after another, the first at byte `offset`. A slice is another view of the file."""

    file: OpenFile
    dtype: np.dtype[Any]
    offset: int
    size: int

    def __len__(self) -> int:
        """The number of numbers."""
        return self.size

    @property
    def nbytes(self) -> int:
        """0: the bytes that they take in memory."""
        return 0

    def __getitem__(self, part: slice) -> FileNumbers:
        """Return a view of a part."""
        start, stop, step = part.indices(self.size)
        assert step == 1, "a part is read in its order"
        return replace(self, offset=self.offset + start * self.dtype.itemsize, size=max(0, stop - start))

    def read(self, starts: NDArray[np.int64], n: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return `n` numbers from each start on, as an array (starts, n) of `dtype`, perhaps a read-only one. Raises
        InvalidData if the file has changed."""
        self.file.require_unchanged()
        n_bytes = n * self.dtype.itemsize
        places = (starts * self.dtype.itemsize + self.offset).tolist()
        if dtype == self.dtype and n_bytes * len(places) <= _GROUP_BYTES:
            return np.frombuffer(self.file.many(places, n_bytes), dtype).reshape(len(places), n)
        found: NDArray[Any] = np.empty((len(places), n), dtype=dtype)
        if n_bytes > _GROUP_BYTES:
            for row, start in zip(found, starts.tolist(), strict=True):
                self.read_into(row, start)
            return found
        together = max(1, _GROUP_BYTES // max(1, n_bytes))
        for i in range(0, len(places), together):
            group = places[i : i + together]
            found[i : i + together] = np.frombuffer(self.file.many(group, n_bytes), self.dtype).reshape(len(group), n)
        return found

    def between(self, start: int, stop: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the numbers `start` … `stop` − 1 as an array of `dtype`. Raises InvalidData if the file has
        changed."""
        self.file.require_unchanged()
        found: NDArray[Any] = np.empty(stop - start, dtype=dtype)
        self.read_into(found, start)
        return found

    def whole(self) -> NDArray[Any]:
        """Read all numbers into memory."""
        return self.between(0, self.size, self.dtype)

    def read_into(self, found: NDArray[Any], start: int) -> None:
        """Read numbers from `start` on until the contiguous array is full."""
        item, place = self.dtype.itemsize, self.offset + start * self.dtype.itemsize
        if found.dtype == self.dtype:
            if found.size:
                self.file.fill(found.view(np.uint8).data, place)
            return
        together = max(1, _GROUP_BYTES // item)
        raw = np.empty(min(together, len(found)), dtype=self.dtype)
        for i in range(0, len(found), together):
            part = raw[: len(found) - i]
            self.file.fill(part.view(np.uint8).data, place + i * item)
            found[i : i + together] = part

    def parts(self, multiple: int = 1) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield all numbers in parts, each with the index of its first number. But for the last, a part has a multiple
        of `multiple` numbers. One part at a time is in memory."""
        together = max(1, _PART_BYTES // (self.dtype.itemsize * multiple)) * multiple
        for start in range(0, self.size, together):
            yield start, self.between(start, min(self.size, start + together), self.dtype)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FileRows:
    """Rows of `width` numbers in a file, indexed like an array (rows, width) of `dtype`.

    `chosen` are the numbers of the rows that belong to it, in their order; None if all do. `crc` is the CRC-32 of all
    bytes of the file's numbers, by which a change is detected. `check` names the file's content and how it was checked;
    None if it cannot be named.
    """

    numbers: FileNumbers
    width: int
    dtype: np.dtype[Any]
    crc: int
    chosen: NDArray[Any] | None = None
    check: str | None = None

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.numbers) // self.width if self.chosen is None else len(self.chosen)

    @property
    def ndim(self) -> int:
        """2, as of an array of rows."""
        return 2

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, width)."""
        return len(self), self.width

    size = property(lambda self: len(self) * self.width)
    """rows · width, as of an array."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all rows into memory."""
        return np.asarray(self[:], dtype=dtype)

    @property
    def nbytes(self) -> int:
        """Bytes in memory: those of the rows' numbers."""
        return 0 if self.chosen is None else self.chosen.nbytes

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Read these rows, (number of rows, width); `rows` is a slice or an array of row numbers."""
        if isinstance(rows, slice) and self.chosen is None:
            start, stop, step = rows.indices(len(self))
            if step == 1:
                stop = max(start, stop)
                flat = self.numbers.between(start * self.width, stop * self.width, self.dtype)
                return flat.reshape(stop - start, self.width)
        if self.chosen is not None:
            found = self.chosen[rows]
        else:
            found = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        starts = found.astype(np.int64, copy=False) * self.width
        return self.numbers.read(starts, self.width, self.dtype)

    def take(self, rows: NDArray[Any]) -> FileRows:
        """Return the given rows, in that order, without reading them."""
        return replace(self, chosen=compact(rows, len(self)) if self.chosen is None else self.chosen[rows])

    def checksum(self, crc: int) -> int:
        """Return the CRC-32 `crc`, continued over what is known of these rows."""
        crc = zlib.crc32(f"{self.shape}{self.dtype.newbyteorder('<').str}{self.crc}".encode(), crc)
        if self.chosen is None:
            return crc
        little_endian = self.chosen.astype(self.chosen.dtype.newbyteorder("<"), copy=False)
        return zlib.crc32(np.ascontiguousarray(little_endian).data.cast("B") if len(self.chosen) else b"", crc)


def compact(rows: NDArray[Any], n_rows: int) -> NDArray[Any]:
    """Return row numbers below `n_rows` in as few bytes as they need: 4 for each, if there are fewer than 2³² rows."""
    return rows.astype(np.uint32 if n_rows <= 2**32 else np.int64, copy=False)
