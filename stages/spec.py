"""What a worker is told about the model and the optimizer: plain frozen data, validated by the coordinator.

Inside workers every array of activations or their gradients is a matrix of shape (features, rows): a
micro-batch's samples are its columns, as in the lecture's f = β + Ωh with Ω of shape (out, in).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

LayerKind = Literal["linear", "relu", "leaky_relu", "tanh", "sigmoid", "gelu", "flatten"]
LossKind = Literal["cross_entropy", "mse", "sum_of_squares"]
Precision = Literal["float32", "float64"]
GeluForm = Literal["none", "tanh"]

RELU_LIKE: frozenset[str] = frozenset({"relu", "leaky_relu", "gelu"})
"""Activations before which weights are drawn with std = sqrt(2 / fan_in)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """One entry of `model.layers`: `units`, `bias` are linear's, `slope` is leaky_relu's, `approximate` gelu's."""

    kind: LayerKind
    units: int = 0
    bias: bool = True
    slope: float = 0.01
    approximate: GeluForm = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A network as a list of layers; a layer's position is its global index, as in torch.nn.Sequential."""

    input_shape: tuple[int, ...]
    layers: tuple[LayerSpec, ...]
    loss: LossKind
    precision: Precision = "float32"
    seed: int = 0

    def features(self) -> tuple[int, ...]:
        """Features (numbers per sample) before layer 0, 1, … and after the last: len(layers) + 1 values."""
        sizes = [math.prod(self.input_shape)]
        for layer in self.layers:
            sizes.append(layer.units if layer.kind == "linear" else sizes[-1])
        return tuple(sizes)

    @property
    def first_linear(self) -> int:
        """The index of the first layer with parameters; the number of layers if none has any."""
        return next((k for k, layer in enumerate(self.layers) if layer.kind == "linear"), len(self.layers))


@dataclass(frozen=True, slots=True, kw_only=True)
class SgdSpec:
    """Stochastic gradient descent as torch.optim.SGD defines it (dampening 0)."""

    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
