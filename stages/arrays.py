"""Array types, and buffers that are used again instead of being allocated for every micro-batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
"""float32 or float64. Activations and their gradients: shape (features, rows), C-contiguous inside a stage."""

CACHE_NUMBERS = 32_768
"""Numbers of an array that stay in the cache during several passes (see benchmarks/RESULTS.md)."""
_ALIGNMENT = 64  # bytes: a cache line, and the width of AVX-512
_CACHE_WAY, _WAYS = 4096, 8
"""Bytes of a way of the first-level cache, and its ways: only so many lines that are a multiple of that apart stay."""


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an uninitialised C-contiguous array that starts on a cache line."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, dtype=np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


@lru_cache(maxsize=256)
def ones(n: int, dtype: str) -> Array:
    """Return a read-only vector of ones. A product with it is the fastest sum. `dtype` is a dtype's `char`, since its
    `name` takes as long to find as a small product."""
    vector: Array = np.ones(n, dtype=dtype)
    vector.flags.writeable = False
    return vector


@lru_cache(maxsize=256)
def scalar(value: float, dtype: str) -> Array:
    """Return a number as a read-only array without dimensions, which a ufunc need not convert at each call."""
    constant: Array = np.array(value, dtype=dtype)
    constant.flags.writeable = False
    return constant


@lru_cache(maxsize=256)
def zeros(rows: int, columns: int, dtype: str) -> Array:
    """Return a read-only array of zeros; `dtype` is a dtype's `char`. NumPy compares two arrays three times as fast as
    an array and a number. All that fit share one vector of CACHE_NUMBERS."""
    if rows * columns > CACHE_NUMBERS:  # a single long row
        return np.broadcast_to(scalar(0.0, dtype), (rows, columns))
    return _zeros(dtype)[: rows * columns].reshape(rows, columns)


@lru_cache(maxsize=2)
def _zeros(dtype: str) -> Array:
    vector = aligned_empty((CACHE_NUMBERS,), np.dtype(dtype))
    vector[:] = 0
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


def in_blocks(*arrays: Array) -> Iterable[tuple[Array, ...]]:
    """Return arrays of one shape as `row_blocks` cuts them, block by block. Small ones are a block themselves."""
    first = arrays[0]
    if first.size <= CACHE_NUMBERS:
        return (arrays,)
    return (tuple(array[rows] for array in arrays) for rows in row_blocks(first))


def copy_into(out: Array, array: Array) -> None:
    """out ← array. If that is the transpose of a C-contiguous array, in as many columns at a time as stay in the cache:
    the columns of many a transpose fall on the same few lines of it, and each line would be fetched for each of its
    numbers."""
    stride, n = array.strides[1], array.shape[1]
    if stride == array.itemsize or (columns := _WAYS * _CACHE_WAY // gcd(stride, _CACHE_WAY)) >= n:
        out[...] = array
        return
    for start in range(0, n, columns):
        out[:, start : start + columns] = array[:, start : start + columns]


class Buffers:
    """A pool of (features, rows) arrays. `take` lends an array, `give` takes it back.

    Who lends often takes from the end of `shelf` itself, calls `new` if it is empty, and gives back by appending: a
    call for each array would be a good part of a small step. So nothing is counted there.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._free: dict[tuple[int, int], list[Array]] = {}
        self.held_bytes = 0
        """Bytes of all arrays of the pool, lent or waiting to be lent again."""

    def take(self, features: int, rows: int) -> Array:
        """Lend an array of shape (features, rows) with undefined content."""
        free = self.shelf(features, rows)
        return free.pop() if free else self.new(features, rows)

    def give(self, array: Array) -> None:
        """Take back an array that `take` lent. Its content stays readable until the next `take`."""
        self.shelf(*array.shape).append(array)

    def shelf(self, features: int, rows: int) -> list[Array]:
        """Return the arrays of this shape that are not lent: always the same list."""
        free = self._free.get((features, rows))
        if free is None:
            free = self._free[features, rows] = []
        return free

    def new(self, features: int, rows: int) -> Array:
        """Lend an array that the pool did not have yet."""
        array = aligned_empty((features, rows), self._dtype)
        self.held_bytes += array.nbytes
        return array

    def trim(self) -> None:
        """Free the memory of all arrays that are not lent."""
        self.held_bytes = self.lent_bytes
        for free in self._free.values():
            free.clear()

    @property
    def lent_bytes(self) -> int:
        """Bytes of the arrays that are lent."""
        return self.held_bytes - sum(array.nbytes for free in self._free.values() for array in free)
