"""Layers: parameters, forward, and a backward pass in two halves."""

from __future__ import annotations

from collections.abc import Callable

from stages.layers.activations import Gelu, LeakyRelu, Relu, Sigmoid, Tanh
from stages.layers.base import Layer
from stages.layers.linear import Linear
from stages.spec import LayerSpec

__all__ = ["Gelu", "Layer", "LeakyRelu", "Linear", "Relu", "Sigmoid", "Tanh", "build_activation"]

_PLAIN: dict[str, Callable[[int, int], Layer]] = {"relu": Relu, "tanh": Tanh, "sigmoid": Sigmoid, "gelu": Gelu}


def build_activation(spec: LayerSpec, index: int, features: int) -> Layer | None:
    """The activation that `spec` names. None for flatten: (features, rows) is flat already."""
    if spec.kind == "flatten":
        return None
    if spec.kind == "leaky_relu":
        return LeakyRelu(index, features, spec.slope)
    return _PLAIN[spec.kind](index, features)
