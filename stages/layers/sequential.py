"""Layers made of layers: one after another, several times, and with their input added to their output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.arrays import Array
from stages.layers.base import Cost, Layer, LayerKind, passes
from stages.layers.options import option
from stages.shapes import Shape


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One entry of `model.layers`: its kind and an object of that kind's options class."""

    kind: str
    options: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialOptions:
    """`layers`, one after another."""

    layers: tuple[LayerSpec, ...] = option("a list of layers such as [linear: {units: 10}, relu]")


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatOptions:
    """`layers`, `times` times one after another, each time with parameters of their own."""

    times: int = option("a whole number, at least 1", ge=1, le=10_000)
    layers: tuple[LayerSpec, ...] = option("a list of layers such as [linear: {units: 10}, relu]")


class Add(Layer):
    """y = x + other: the end of a residual connection (He et al. 2016)."""

    n_inputs = 2
    in_place = True
    passes_gradient = True

    def __init__(self, shape: Shape) -> None:
        self.shape_in = self.shape_out = shape

    def cost(self) -> Cost:
        """See Layer."""
        return passes(self.shape_in.numbers, 1, 0)

    def forward(self, x: Array, y: Array, extras: Any, p: Any, at: Any, *others: Array) -> None:
        """See Layer."""
        np.add(x, others[0], out=y)


def _repeated(options: RepeatOptions, shape: Shape) -> Sequence[LayerSpec]:
    return [LayerSpec("sequential", SequentialOptions(layers=options.layers)) for _ in range(options.times)]


def _layers(options: SequentialOptions, shape: Shape) -> Sequence[LayerSpec]:
    return options.layers


SEQUENTIAL = LayerKind(name="sequential", options=SequentialOptions, expand=_layers, groups_only=True)
RESIDUAL = LayerKind(name="residual", options=SequentialOptions, expand=_layers, adds_input=True, groups_only=True)
REPEAT = LayerKind(name="repeat", options=RepeatOptions, expand=_repeated, of_blocks=True)
