"""Rows of training data and the random streams that order them.

[Note: random streams] Everything follows from the job's seed, so that anyone can reproduce a run from outside:
order of epoch e (from 1): `default_rng([seed, 1, e - 1]).permutation(n_train)`; validation rows: the first
`round(n * share)` of `default_rng([seed, 3]).permutation(n)`; training rows are the others, in that order. How classes
and groups change this is said in cluster/data/splitting.py.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.file_numbers import FileRows, compact
from stages.windows import Windows

FloatArray = npt.NDArray[np.floating[Any]]
RowNumbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Dataset:
    """Rows of inputs and their targets; row i of `x` belongs to row i of `y`.

    Both are arrays, or what is indexed like arrays: `Windows` over tokens, `FileRows` of a large file.

    x: (rows, features), float32 or float64: the job's precision; or token numbers (rows, positions), integers.
    y: labels (rows,) int64 for cross_entropy, or (rows, positions) with tokens; else targets (rows, outputs) of x's
    dtype.
    """

    x: Any
    y: Any

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.x)

    def take(self, rows: RowNumbers | slice) -> Dataset:
        """Return the given rows, in that order: views for a slice, copies for row numbers. Rows of a file stay there,
        and inputs and targets share the numbers of their rows."""
        chosen: Any = rows
        if any(isinstance(part, FileRows) for part in (self.x, self.y)):
            chosen = compact(np.arange(len(self))[rows] if isinstance(rows, slice) else rows, len(self))
        x, y = (part.take(chosen) if isinstance(part, FileRows) else part[chosen] for part in (self.x, self.y))
        return Dataset(x=x, y=y)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        x, y = self.x, self.y
        shared = isinstance(x, FileRows) and isinstance(y, FileRows) and x.chosen is y.chosen
        return int(x.nbytes + (0 if shared else y.nbytes))

    @property
    def in_memory(self) -> bool:
        """Whether no row is read from a file."""
        return type(self.x) is type(self.y) is np.ndarray

    def read_bytes(self, n_rows: int) -> int:
        """Return the bytes that so many rows of a file take in memory when they are read. Rows of arrays take none:
        they are there already."""
        files = [part for part in (self.x, self.y) if isinstance(part, FileRows)]
        return sum(min(n_rows, len(self)) * part.width * part.dtype.itemsize for part in files)

    def inputs(self, rows: RowNumbers | slice) -> Any:
        """Return the inputs of these rows in the layout of the first stage: (features, rows), or tokens (1,
        columns)."""
        found = _rows(self.x, rows)
        return found.T if found.dtype.kind == "f" else found.reshape(1, -1)

    def targets(self, rows: RowNumbers | slice) -> Any:
        """Return the targets of these rows in the layout of the loss: labels (columns,), or numbers (outputs, rows)."""
        found = _rows(self.y, rows)
        return found.T if found.dtype.kind == "f" else found.reshape(-1)

    def fingerprint(self) -> int:
        """Return a CRC-32 of shapes, dtypes and bytes. Equal data has the same fingerprint on every machine."""
        crc = 0
        for array in (self.x, self.y):
            if isinstance(array, Windows | FileRows):
                crc = array.checksum(crc)
                continue
            little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
            crc = zlib.crc32(f"{array.shape}{little_endian.dtype.str}".encode(), crc)
            crc = zlib.crc32(np.ascontiguousarray(little_endian).data.cast("B") if array.size else b"", crc)
        return crc


def _rows(array: Any, rows: RowNumbers | slice) -> Any:
    """Return `array[rows]`. NumPy copies rows of an array faster with `take`."""
    plain = type(array) is np.ndarray and array.ndim == 2 and not isinstance(rows, slice)
    return array.take(rows, axis=0) if plain else array[rows]


def train_validation_split(n_rows: int, share: float, seed: int) -> tuple[RowNumbers, RowNumbers]:
    """Split `n_rows` rows into row numbers (training, validation). See [Note: random streams].

    One of them is empty if `round(n_rows * share)` is 0 or n_rows. Raises ValueError for a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1, got {share}")
    order = np.random.default_rng([seed, 3]).permutation(n_rows)
    n_validation = round(n_rows * share)
    return order[n_validation:], order[:n_validation]


def epoch_order(seed: int, epoch_index: int, n_train: int) -> RowNumbers:
    """Return the order in which an epoch visits the training rows; the first epoch has index 0. See [Note: random
    streams]."""
    return np.random.default_rng([seed, 1, epoch_index]).permutation(n_train)


def batch_bounds(n_rows: int, batch_size: int) -> tuple[tuple[int, int], ...]:
    """Return (start, stop) of each batch, in order. The last batch may be smaller; no row is dropped.

    >>> batch_bounds(10, 4)
    ((0, 4), (4, 8), (8, 10))
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return tuple((start, min(start + batch_size, n_rows)) for start in range(0, n_rows, batch_size))


def micro_batch_sizes(n_rows: int, n_micro_batches: int) -> tuple[int, ...]:
    """Return the number of rows of each micro-batch, cut as `numpy.array_split` does: sizes differ by at most one,
    larger ones first.

    Fewer rows than micro-batches give fewer micro-batches, never an empty one.

    >>> micro_batch_sizes(103, 8)
    (13, 13, 13, 13, 13, 13, 13, 12)
    """
    if n_micro_batches < 1:
        raise ValueError(f"n_micro_batches must be at least 1, got {n_micro_batches}")
    small, n_larger = divmod(n_rows, n_micro_batches)
    return (small + 1,) * n_larger + (small,) * ((n_micro_batches - n_larger) if small else 0)
