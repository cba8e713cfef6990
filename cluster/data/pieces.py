"""A column's numbers as they came, in pieces: joining them would copy each number once more."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.file_numbers import FileNumbers

Piece = NDArray[Any] | FileNumbers


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """`parts` one after another, each an array (numbers,) or numbers of a file. `starts` has the place of each part's
    first number, and at its end the number of all. `dtype` holds the numbers of every part."""

    parts: tuple[Piece, ...]
    starts: tuple[int, ...]
    dtype: np.dtype[Any]

    @staticmethod
    def of(parts: Sequence[Piece]) -> Pieces:
        """Return at least one part as pieces."""
        starts = (0, *accumulate(map(len, parts)))
        return Pieces(tuple(parts), starts, np.result_type(*{part.dtype for part in parts}))

    def __len__(self) -> int:
        """The number of numbers."""
        return self.starts[-1]

    def read_into(self, found: NDArray[Any], start: int) -> None:
        """Write numbers from `start` on into the array until it is full."""
        k, place, stop = bisect.bisect_right(self.starts, start) - 1, start, start + len(found)
        while place < stop:
            first, end = self.starts[k], min(stop, self.starts[k + 1])
            own = found[place - start : end - start]
            part = self.parts[k]
            if isinstance(part, FileNumbers):
                part.read_into(own, place - first)
            else:
                own[:] = part[place - first : end - first]
            k, place = k + 1, end

    def arrays(self) -> Iterator[NDArray[Any]]:
        """Yield each part as an array."""
        return (part.whole() if isinstance(part, FileNumbers) else part for part in self.parts)

    def whole(self) -> NDArray[Any]:
        """Return all numbers in one array."""
        found: NDArray[Any] = np.empty(len(self), self.dtype)
        self.read_into(found, 0)
        return found
