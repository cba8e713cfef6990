"""Compares stored tensors: bit by bit, and how far their numbers are apart. Holds one part of a tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

import numpy as np

from cluster.checkpoints.stored import Stored
from cluster.checkpoints.tensor_files import StoredTensor

Verdict = Literal["equal", "values differ", "types differ", "shapes differ", "only in A", "only in B"]


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """How a tensor of A and the one of B with its name differ.

    `verdict` is `equal` only if type, shape and every bit are. `largest` is max |a − b| and `relative` is
    ‖a − b‖₂ / ‖a‖₂; None if the shapes differ or the type has no numbers here, NaN if a value is not finite.
    """

    name: str
    verdict: Verdict
    first: StoredTensor | None
    second: StoredTensor | None
    largest: float | None = None
    relative: float | None = None


def compared(first: Stored, second: Stored) -> Iterator[TensorDifference]:
    """Yield the comparison of every tensor of either, in A's order. Raises OSError."""
    for name in dict.fromkeys([*first.tensors, *second.tensors]):
        a, b = first.tensors.get(name), second.tensors.get(name)
        if a is None or b is None:
            yield TensorDifference(name, "only in B" if a is None else "only in A", a, b)
        elif a.shape != b.shape:
            yield TensorDifference(name, "shapes differ", a, b)
        elif a.kind == b.kind and _same_bits(a, b):
            yield TensorDifference(name, "equal", a, b, 0.0, 0.0)
        else:
            yield TensorDifference(
                name, "values differ" if a.kind == b.kind else "types differ", a, b, *_distances(a, b)
            )


def _same_bits(a: StoredTensor, b: StoredTensor) -> bool:
    return all(one == other for one, other in zip_longest(a.parts(), b.parts()))


def _distances(a: StoredTensor, b: StoredTensor) -> tuple[float | None, float | None]:
    """Return max |a − b| and ‖a − b‖₂ / ‖a‖₂."""
    if not (a.has_numbers and b.has_numbers):
        return None, None
    largest = apart = norm = 0.0
    with np.errstate(all="ignore"):
        for x, y in _pairs(a, b):
            difference = np.abs(x - y)
            largest = float(np.fmax(largest, difference.max())) if not np.isnan(difference).any() else math.nan
            apart += float(difference @ difference)
            norm += float(x @ x)
            if math.isnan(largest):
                return math.nan, math.nan
    return largest, math.sqrt(apart / norm) if norm else (math.inf if apart else 0.0)


def _pairs(a: StoredTensor, b: StoredTensor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the same numbers of both, whose types may have different sizes."""
    numbers = [_numbers(a), _numbers(b)]
    held = [np.empty(0), np.empty(0)]
    while True:
        for k in (0, 1):
            if not len(held[k]):
                held[k] = next(numbers[k], held[k])
        n = min(map(len, held))
        if not n:
            return
        yield held[0][:n], held[1][:n]
        held = [one[n:] for one in held]


def _numbers(tensor: StoredTensor) -> Iterator[np.ndarray]:
    return (tensor.numbers(part) for part in tensor.parts())


@dataclass(frozen=True, slots=True)
class Magnitude:
    """The size of a tensor's numbers: ‖x‖₂ and max |x|, and how many are NaN or infinite, which both leave out."""

    norm: float
    largest: float
    not_finite: int


def size_of(tensor: StoredTensor) -> Magnitude | None:
    """Return the size of a tensor's numbers; None if the type has no numbers here. Raises OSError."""
    if not tensor.has_numbers:
        return None
    norm, largest, not_finite = 0.0, 0.0, 0
    with np.errstate(all="ignore"):
        for x in _numbers(tensor):
            finite = x[np.isfinite(x)]
            not_finite += len(x) - len(finite)
            norm += float(finite @ finite)
            largest = max(largest, float(np.abs(finite).max(initial=0.0)))
    return Magnitude(math.sqrt(norm), largest, not_finite)
