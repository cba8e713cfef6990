"""The shape of a value between layers: the numbers of one sample, and how a micro-batch of samples lies in an array."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """A sample has `features` numbers at each of `positions` positions; with 0 positions, it is one vector.

    The array of a micro-batch is (features, rows · columns), C-contiguous; column = row · positions + position.
    If `vocabulary` is above 0, the numbers are token numbers below it. `dims` is the arrangement of a vector's numbers
    in the data, such as (8, 8) for an image; layers that work element by element ignore it.
    """

    features: int
    positions: int = 0
    vocabulary: int = 0
    dims: tuple[int, ...] = ()

    @property
    def columns(self) -> int:
        """The number of columns of the array for each sample."""
        return self.positions or 1

    @property
    def numbers(self) -> int:
        """How many numbers a sample has."""
        return self.features * self.columns

    def with_features(self, features: int) -> Shape:
        """Return a shape with the same positions and `features` real numbers at each."""
        return Shape(features, self.positions)

    @property
    def described(self) -> str:
        """What a sample has: `8 features`, `6 features at each of 7 positions`, `7 tokens` or `the shape [8, 8]`."""
        if self.vocabulary:
            return f"{self.positions} tokens"
        if len(self.dims) > 1:
            return f"the shape {list(self.dims)}"
        features = f"{self.features} feature{'s' if self.features != 1 else ''}"
        return f"{features} at each of {self.positions} positions" if self.positions else features

    def __str__(self) -> str:
        if self.vocabulary:
            return f"{self.positions} tokens"
        if len(self.dims) > 1:
            return f"{list(self.dims)}"
        return f"{self.features} × {self.positions} positions" if self.positions else f"{self.features}"


def input_shape(dims: tuple[int, ...], vocabulary: int = 0) -> Shape:
    """Return the shape of a model's input: samples of shape `dims`, or (`vocabulary` above 0) `dims[0]` tokens."""
    if vocabulary:
        return Shape(1, positions=dims[0], vocabulary=vocabulary)
    return Shape(math.prod(dims), dims=dims)
