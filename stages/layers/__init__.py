"""The kinds of layers, by the names that job files use. A new kind is a file here and a row of the table."""

from __future__ import annotations

from typing import Any

from stages.layers.activations import LEAKY_RELU, RELU, SIGMOID, SILU, SOFTPLUS, TANH
from stages.layers.attention import ATTENTION, DOT_PRODUCT_ATTENTION
from stages.layers.base import Layer, LayerKind
from stages.layers.dropout import DROPOUT
from stages.layers.embedding import EMBEDDING, POSITIONS
from stages.layers.flatten import FLATTEN
from stages.layers.gelu import GELU
from stages.layers.linear import LINEAR
from stages.layers.norms import LAYER_NORM, RMS_NORM
from stages.layers.sequential import REPEAT, RESIDUAL, SEQUENTIAL, LayerSpec
from stages.layers.swiglu import SWIGLU
from stages.layers.transformer import TRANSFORMER

__all__ = ["KINDS", "REFUSED", "Layer", "LayerKind", "LayerSpec", "entry"]

KINDS: dict[str, LayerKind] = {
    kind.name: kind
    for kind in (
        LINEAR,
        RELU,
        LEAKY_RELU,
        TANH,
        SIGMOID,
        GELU,
        SILU,
        SOFTPLUS,
        SWIGLU,
        FLATTEN,
        EMBEDDING,
        POSITIONS,
        LAYER_NORM,
        RMS_NORM,
        DROPOUT,
        ATTENTION,
        DOT_PRODUCT_ATTENTION,
        RESIDUAL,
        SEQUENTIAL,
        REPEAT,
        TRANSFORMER,
    )
}


REFUSED: dict[str, str] = {
    "batchnorm": "which does not exist, since its result would depend on how a batch is cut into micro-batches; use "
    "layer_norm or rms_norm, which use only one sample",
}
"""Layers that users may expect: the letters of the name, and why there is no such layer."""


def entry(kind: str, **options: Any) -> LayerSpec:
    """Return a layer's entry: `entry("linear", units=3)`. Raises KeyError for an unknown kind, TypeError for an unknown
    option."""
    return LayerSpec(kind, KINDS[kind].options(**options))
