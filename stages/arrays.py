"""Array types, and buffers that are used again instead of being allocated for every micro-batch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
"""float32 or float64. Activations and their gradients: shape (features, rows), C-contiguous inside a stage."""

CACHE_NUMBERS = 32_768
"""Numbers of an array that stay in the cache during several passes (see benchmarks/RESULTS.md)."""
_ALIGNMENT = 64  # bytes: a cache line, and the width of AVX-512


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an uninitialised C-contiguous array that starts on a cache line."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


@lru_cache(maxsize=256)
def ones(n: int, dtype: str) -> Array:
    """Return a read-only vector of ones. A product with it is the fastest sum."""
    vector: Array = np.ones(n, dtype=dtype)
    vector.flags.writeable = False
    return vector


def set_or_add(gradient: Array, value: Array, *, accumulate: bool) -> None:
    """Set a gradient, or (`accumulate`) add to it."""
    if accumulate:
        np.add(gradient, value, out=gradient)
    else:
        np.copyto(gradient, value)


def row_blocks(a: Array) -> Iterator[slice]:
    """Return slices of the rows of `a` (features, columns), each small enough to stay in the cache during several
    passes."""
    step = max(1, CACHE_NUMBERS // a.shape[1])
    return (slice(i, i + step) for i in range(0, len(a), step))


class Buffers:
    """A pool of (features, rows) arrays. `take` lends an array, `give` takes it back. They are called several times an
    action, so they count nothing."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._free: dict[tuple[int, ...], list[Array]] = {}
        self.held_bytes = 0
        """Bytes of all arrays of the pool, lent or waiting to be lent again."""

    def take(self, features: int, rows: int) -> Array:
        """Lend an array of shape (features, rows) with undefined content."""
        free = self._free.get((features, rows))
        if free:
            return free.pop()
        array = aligned_empty((features, rows), self._dtype)
        self.held_bytes += array.nbytes
        return array

    def give(self, array: Array) -> None:
        """Take back an array that `take` lent. Its content stays readable until the next `take`."""
        free = self._free.get(array.shape)
        if free is None:
            free = self._free[array.shape] = []
        free.append(array)

    def trim(self) -> None:
        """Free the memory of all arrays that are not lent."""
        self.held_bytes = self.lent_bytes
        self._free.clear()

    @property
    def lent_bytes(self) -> int:
        """Bytes of the arrays that are lent."""
        return self.held_bytes - sum(array.nbytes for free in self._free.values() for array in free)
