"""The transformer block with norms before attention and feed-forward network (Radford et al. 2019), as a short form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stages.layers.attention import AttentionOptions
from stages.layers.base import LayerKind, wrong_input
from stages.layers.dropout import DropoutOptions
from stages.layers.gelu import GeluOptions
from stages.layers.linear import LinearOptions
from stages.layers.norms import LayerNormOptions, RmsNormOptions
from stages.layers.options import NoOptions, option
from stages.layers.sequential import LayerSpec, SequentialOptions
from stages.shapes import Shape

_ACTIVATIONS: dict[str, tuple[str, object]] = {
    "gelu": ("gelu", GeluOptions()),
    "gelu_tanh": ("gelu", GeluOptions(approximate="tanh")),
    "relu": ("relu", NoOptions()),
    "silu": ("silu", NoOptions()),
    "swiglu": ("swiglu", NoOptions()),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerOptions:
    """`times` blocks. `ffn` is the number of features inside the feed-forward network (4 times the input's if not
    given); `dropout` is the rate after attention and after the network; the other options are those of `attention`."""

    heads: int = option("a whole number, at least 1", ge=1, le=2**20)
    kv_heads: int | None = option(
        "a whole number, at least 1, or null for the same number as heads", default=None, ge=1
    )
    times: int = option("a whole number, at least 1", default=1, ge=1, le=10_000)
    ffn: int | None = option("a whole number, at least 1, or null for 4 times the features", default=None, ge=1)
    norm: Literal["layer_norm", "rms_norm"] = option("layer_norm or rms_norm", default="layer_norm")
    activation: Literal["gelu", "gelu_tanh", "relu", "silu", "swiglu"] = option(
        "gelu, gelu_tanh, relu, silu or swiglu", default="gelu"
    )
    dropout: float = option("a number from 0 to below 1", default=0.0, ge=0, lt=1)
    bias: bool = option("true or false", default=True)
    causal: bool = option("true or false", default=True)
    rotary: bool = option("true or false", default=False)


def _expand(options: TransformerOptions, shape: Shape) -> Sequence[LayerSpec]:
    if shape.vocabulary or not shape.positions:
        raise wrong_input("be vectors at positions", shape, "put embedding before it")
    ffn = options.ffn or 4 * shape.features
    norm = _norm(options)
    kind, activation = _ACTIVATIONS[options.activation]
    dropout = [LayerSpec("dropout", DropoutOptions(rate=options.dropout))] if options.dropout else []
    attention = AttentionOptions(
        heads=options.heads,
        kv_heads=options.kv_heads,
        causal=options.causal,
        rotary=options.rotary,
        bias=options.bias,
    )
    network = (
        LayerSpec("linear", LinearOptions(units=2 * ffn if kind == "swiglu" else ffn, bias=options.bias)),
        LayerSpec(kind, activation),
        LayerSpec("linear", LinearOptions(units=shape.features, bias=options.bias)),
    )
    block = (
        _residual(norm, LayerSpec("attention", attention), *dropout),
        _residual(norm, *network, *dropout),
    )
    return [LayerSpec("sequential", SequentialOptions(layers=block)) for _ in range(options.times)]


def _norm(options: TransformerOptions) -> LayerSpec:
    if options.norm == "rms_norm":
        return LayerSpec("rms_norm", RmsNormOptions())
    return LayerSpec("layer_norm", LayerNormOptions(bias=options.bias))


def _residual(*layers: LayerSpec) -> LayerSpec:
    return LayerSpec("residual", SequentialOptions(layers=layers))


TRANSFORMER = LayerKind(name="transformer", options=TransformerOptions, expand=_expand, of_blocks=True)
