"""Layers: parameters, forward, and a backward pass in two halves."""

from __future__ import annotations

from collections.abc import Callable

from stages.layers.activations import LeakyRelu, Relu, Sigmoid, Tanh
from stages.layers.base import Layer
from stages.layers.gelu import Gelu, GeluTanh
from stages.layers.linear import Linear
from stages.spec import LayerSpec

__all__ = ["Gelu", "GeluTanh", "Layer", "LeakyRelu", "Linear", "Relu", "Sigmoid", "Tanh", "build_activation"]

_PLAIN: dict[str, Callable[[int, int], Layer]] = {"relu": Relu, "tanh": Tanh, "sigmoid": Sigmoid}


def build_activation(spec: LayerSpec, index: int, features: int) -> Layer | None:
    """The activation that `spec` names. None for flatten: (features, rows) is flat already."""
    if spec.kind == "flatten":
        return None
    if spec.kind == "leaky_relu":
        return LeakyRelu(index, features, spec.slope)
    if spec.kind == "gelu":
        return (GeluTanh if spec.approximate == "tanh" else Gelu)(index, features)
    return _PLAIN[spec.kind](index, features)
