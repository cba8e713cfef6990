"""Memory that one process writes and another reads: a ring of bytes in a memfd, which has no name and no file.

[Note: order of ring and socket] The ring holds payloads only. Where a payload stands, and that it was read, is said in
messages of a socket: the kernel orders memory around both calls, which Python cannot do by itself. Nobody writes where
something was written and not released.

Positions count bytes from the beginning of time. Position n is byte n % capacity of the memory; a payload never goes
round the end.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from collections import deque
from typing import Any

import numpy as np

from stages.arrays import Array
from stages.channel import Tag

_ALIGNMENT = 64
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL if hasattr(fcntl, "F_SEAL_SEAL") else 0


class RingWriter:
    """The writing end. `descriptor` is the memfd, until `forget_descriptor`.

    Its memory is allocated at once, because a write to a page for which there is no memory would kill the process.
    Raises OSError if there is none.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = -(-capacity // mmap.PAGESIZE) * mmap.PAGESIZE
        self.written = self.released = 0
        self.descriptor = os.memfd_create("pipetrain-link", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(self.descriptor, 0, self.capacity)
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)
            self._memory = mmap.mmap(self.descriptor, self.capacity)
        except BaseException:
            os.close(self.descriptor)
            raise

    def forget_descriptor(self) -> None:
        """Close the memfd, after the reader got it. The mapped memory stays."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def close(self) -> None:
        """Let the memory go."""
        self.forget_descriptor()
        with contextlib.suppress(
            BufferError
        ):  # the frame of an error may still hold an array; its end frees the memory
            self._memory.close()

    @property
    def piece(self) -> int:
        """Bytes of a piece of a larger payload: half of the ring, so that both ends work at the same time."""
        return self.capacity // 2

    def place(self, n_bytes: int) -> tuple[int, int] | None:
        """Return the start and the end of free room for a payload of up to `capacity` bytes; None if there is none."""
        size, offset = -(-n_bytes // _ALIGNMENT) * _ALIGNMENT, self.written % self.capacity
        start = self.written if offset + size <= self.capacity else self.written + self.capacity - offset
        if start + size - self.released > self.capacity and self.released != self.written:
            return None
        return start, start + size

    def write(self, start: int, array: np.ndarray[Any, np.dtype[Any]]) -> None:
        """Copy the array, which may be strided, to the position."""
        room = np.ndarray(array.shape, array.dtype, self._memory, start % self.capacity)
        np.copyto(room, array)


class Parked:
    """An array that stands in a ring until somebody takes it."""

    __slots__ = ("dtype", "end", "ring", "shape", "start", "tag")

    def __init__(
        self, ring: RingReader, tag: Tag, start: int, end: int, shape: tuple[int, int], dtype: np.dtype[Any]
    ) -> None:
        self.ring: RingReader | None = ring
        self.tag, self.start, self.end, self.shape, self.dtype = tag, start, end, shape, dtype


class RingReader:
    """The reading end, of the memfd `descriptor`, which it closes. `writer` is the worker that writes. `released` is
    the position up to which all has been read."""

    def __init__(self, writer: int, descriptor: int, capacity: int) -> None:
        self.writer = writer
        try:
            if os.fstat(descriptor).st_size != capacity or fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) != _SEALS:
                raise ValueError("the memory of a link can still change its size, or has another one than told")
            self._memory = mmap.mmap(descriptor, capacity, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
        self.capacity = capacity
        self.released = self.told = 0
        """`told` is what the writer knows of `released`. If half of the ring is untold, it may soon need the room."""
        self._parked: deque[Parked] = deque()

    def park(self, tag: Tag, start: int, end: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> Parked:
        """Record a payload that was written. Payloads are recorded in the order in which they stand."""
        parked = Parked(self, tag, start, end, shape, dtype)
        self._parked.append(parked)
        return parked

    def waiting(self) -> list[Parked]:
        """Return what is parked."""
        return [parked for parked in self._parked if parked.ring is not None]

    def take(self, parked: Parked) -> Array:
        """Return a copy of a parked array, and free its place."""
        array: Array = np.ndarray(parked.shape, parked.dtype, self._memory, parked.start % self.capacity).copy()
        self.free(parked)
        return array

    def read_into(self, out: np.ndarray[Any, np.dtype[np.uint8]], start: int) -> None:
        """Copy the bytes at a position into `out`."""
        np.copyto(out, np.ndarray(out.shape, np.uint8, self._memory, start % self.capacity))

    def free(self, parked: Parked) -> None:
        """Free the place of a parked array. What was parked later may be freed earlier."""
        parked.ring = None
        while self._parked and self._parked[0].ring is None:
            self.released = self._parked.popleft().end

    def close(self) -> None:
        """Forget what is parked, and let the memory go."""
        self._parked.clear()  # each of them refers to this ring
        with contextlib.suppress(BufferError):  # see RingWriter.close
            self._memory.close()


def can_share_memory() -> bool:
    """Whether this system lets processes share memory in this way."""
    if not (hasattr(os, "memfd_create") and _SEALS):
        return False
    with contextlib.suppress(OSError):
        RingWriter(1).close()
        return True
    return False
