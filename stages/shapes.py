"""The shape of a value between layers: what one sample is there, and how a micro-batch of samples lies in an array."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """`features` numbers at each of `positions` places of a sample; 0 positions: the sample is one vector.

    The array of a micro-batch is (features, rows · columns), C-contiguous; column = row · positions + position.
    `vocabulary` above 0 says that the numbers are token numbers below it. `dims` is how the numbers of a vector were
    arranged in the data, such as (8, 8) for an image: of no concern to layers that work element by element.
    """

    features: int
    positions: int = 0
    vocabulary: int = 0
    dims: tuple[int, ...] = ()

    @property
    def columns(self) -> int:
        """Columns of the array for each sample."""
        return self.positions or 1

    @property
    def numbers(self) -> int:
        """Numbers for each sample."""
        return self.features * self.columns

    def with_features(self, features: int) -> Shape:
        """The same places with so many real numbers at each."""
        return Shape(features, self.positions)

    def __str__(self) -> str:
        if self.vocabulary:
            return f"{self.positions} tokens"
        if len(self.dims) > 1:
            return f"{list(self.dims)}"
        return f"{self.features} × {self.positions} positions" if self.positions else f"{self.features}"


def input_shape(dims: tuple[int, ...], vocabulary: int = 0) -> Shape:
    """Of a model's input: samples of shape `dims`, or (`vocabulary` above 0) `dims[0]` tokens."""
    if vocabulary:
        return Shape(1, positions=dims[0], vocabulary=vocabulary)
    return Shape(math.prod(dims), dims=dims)
