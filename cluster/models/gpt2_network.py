"""A network seen as a GPT-2 (Radford et al. 2019): its sizes, and the name of each parameter in Hugging Face's layout.

    embedding wte · positions wpe · dropout · blocks h.0, h.1, … · layer_norm ln_f · linear lm_head
    a block:  x + (ln_1 · c_attn · attention · c_proj · dropout), then x + (ln_2 · c_fc · activation · c_proj · dropout)

Import and export read the names from here: `as_gpt2` finds them in the operations, whatever the job file looks like.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stages.layers.attention import DotProductAttention
from stages.layers.dropout import Dropout
from stages.layers.gelu import GeluTanh
from stages.layers.norms import LayerNorm
from stages.network import Network, Op

ACTIVATIONS = {
    "gelu": ("gelu", "none"),
    "gelu_python": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "gelu_python_tanh": ("gelu", "tanh"),
    "gelu_fast": ("gelu", "tanh"),
    "gelu_accurate": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "silu": ("silu", ""),
    "swish": ("silu", ""),
}
"""`activation_function` of a config.json, as the kind of layer and the form of gelu."""
_NAMES = {("gelu", "none"): "gelu", ("gelu", "tanh"): "gelu_new", ("relu", ""): "relu", ("silu", ""): "silu"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpt2:
    """The sizes and settings of a GPT-2. `activation` is a value of ACTIVATIONS; rates of dropout are behind the
    positions and at the end of both branches of a block."""

    vocabulary: int
    positions: int
    features: int
    heads: int
    blocks: int
    ffn: int
    activation: tuple[str, str] = ("gelu", "tanh")
    epsilon: float = 1e-5
    embedding_dropout: float = 0.0
    residual_dropout: float = 0.0
    tied: bool = True

    @property
    def activation_name(self) -> str:
        """As a config.json has it."""
        return _NAMES[self.activation]


@dataclass(frozen=True, slots=True)
class Pair:
    """A parameter under both names. `ours` is None for a bias that the network leaves out. The layout has the
    weights of blocks `turned`: (in, out)."""

    ours: str | None
    theirs: str
    shape: tuple[int, ...]
    turned: bool = False

    @property
    def their_shape(self) -> tuple[int, ...]:
        """The shape in the layout."""
        return self.shape[::-1] if self.turned else self.shape


class NotGpt2(Exception):
    """The network is not a GPT-2; the text is the first difference, on one line."""


def as_gpt2(network: Network) -> tuple[Gpt2, tuple[Pair, ...]]:
    """The network's sizes and its parameters under both names. Raises NotGpt2."""
    reader = _Reader(network)
    sizes = reader.read()
    return sizes, tuple(reader.pairs)


class _Reader:
    """Walks over the operations and takes note of parameters; the first operation that does not fit ends it."""

    def __init__(self, network: Network) -> None:
        self._ops, self._place, self._network = network.ops, 0, network
        self.pairs: list[Pair] = []
        self._seen: dict[str, Any] = {}

    def read(self) -> Gpt2:
        """All of it."""
        embedding = self._take("embedding", self._next())
        vocabulary, features = embedding.layer.parameters[0].shape
        self._note(embedding, "transformer.wte")
        positions = self._take("positions", self._next())
        self._note(positions, "transformer.wpe")
        embedding_dropout = self._dropout()
        blocks = 0
        while self._kind(2) == "dot_product_attention":
            self._block(f"transformer.h.{blocks}", features)
            blocks += 1
        if not blocks:
            raise NotGpt2("it has no block of attention")
        self._norm("transformer.ln_f")
        head = self._head(vocabulary)
        if (behind := self._next()) is not None:
            raise NotGpt2(f"layer {behind.name} is {behind.kind}, but GPT-2 ends before it")
        return Gpt2(
            vocabulary=vocabulary,
            positions=positions.layer.shape_in.positions,
            features=features,
            heads=self._seen["heads"],
            blocks=blocks,
            ffn=self._seen["ffn"],
            activation=self._seen["activation"],
            epsilon=self._seen["epsilon"],
            embedding_dropout=embedding_dropout,
            residual_dropout=self._seen["dropout"],
            tied=head.layer.parameters[0].tied_to is not None,
        )

    def _block(self, name: str, features: int) -> None:
        start = self._place
        self._norm(f"{name}.ln_1")
        self._linear(f"{name}.attn.c_attn", 3 * features)
        self._attention(features)
        self._linear(f"{name}.attn.c_proj", features)
        self._end_branch(start)
        start = self._place
        self._norm(f"{name}.ln_2")
        self._same("ffn", self._linear(f"{name}.mlp.c_fc"))
        self._activation()
        self._linear(f"{name}.mlp.c_proj", features)
        self._end_branch(start)

    def _next(self) -> Op | None:
        return self._ops[self._place] if self._place < len(self._ops) else None

    def _kind(self, ahead: int) -> str | None:
        place = self._place + ahead
        return self._ops[place].kind if place < len(self._ops) else None

    def _take(self, kind: str, op: Op | None) -> Op:
        """Operation `op`, which has this kind and goes on with the value before it."""
        if op is None or op.kind != kind or op.inputs[0] != self._place:
            raise self._differs(kind)
        self._place += 1
        return op

    def _differs(self, wanted: str) -> NotGpt2:
        op = self._next()
        if op is None:
            return NotGpt2(f"it ends with layer {self._ops[-1].name}, but GPT-2 has {wanted} behind it")
        return NotGpt2(f"layer {op.name} is {op.kind}, but GPT-2 has {wanted} there")

    def _norm(self, name: str) -> None:
        op = self._take("layer_norm", self._next())
        assert isinstance(op.layer, LayerNorm)
        self._same("epsilon", op.layer.epsilon)
        self._note(op, name)

    def _linear(self, name: str, units: int | None = None) -> int:
        op = self._take("linear", self._next())
        given = op.layer.shape_out.features
        if units is not None and given != units:
            raise NotGpt2(f"layer {op.name} has {given} units, but GPT-2 has {units} there")
        if op.layer.parameters[0].tied_to is not None:
            raise NotGpt2(f"layer {op.name} uses the weight of another layer, but in GPT-2 only the last layer does")
        self._note(op, name, turned=True)
        return given

    def _attention(self, features: int) -> None:
        op = self._take("dot_product_attention", self._next())
        layer = op.layer
        assert isinstance(layer, DotProductAttention)
        for is_other, what in (
            (layer.kv_heads != layer.heads, "has fewer heads of keys than of queries"),
            (not layer.causal, "is not causal"),
            (layer.rotary, "is rotary"),
        ):
            if is_other:
                raise NotGpt2(f"layer {op.name} {what}, but GPT-2's attention cannot be so")
        self._same("heads", layer.heads)

    def _activation(self) -> None:
        kind, op = self._kind(0), self._next()
        form = ""
        if op is not None and kind == "gelu":
            form = "tanh" if isinstance(op.layer, GeluTanh) else "none"
        if (kind, form) not in _NAMES:
            raise self._differs("gelu, relu or silu")
        self._take(str(kind), op)
        self._same("activation", (kind, form))

    def _dropout(self) -> float:
        op = self._next()
        if op is None or not isinstance(op.layer, Dropout):
            return 0.0
        self._take("dropout", op)
        return op.layer.rate

    def _end_branch(self, start: int) -> None:
        self._same("dropout", self._dropout())
        op = self._take("add", self._next())
        if op.inputs[1] != start:
            raise NotGpt2(f"layer {op.name} adds another value than its branch began with")

    def _head(self, vocabulary: int) -> Op:
        op = self._take("linear", self._next())
        units = op.layer.shape_out.features
        if units != vocabulary:
            raise NotGpt2(f"layer {op.name} has {units} units, but GPT-2 has one for each of {vocabulary} tokens")
        if len(op.layer.parameters) > 1:
            raise NotGpt2(f"layer {op.name} has a bias, but GPT-2's last layer has none; write bias: false")
        tied_to = op.layer.parameters[0].tied_to
        if tied_to is None:
            self._note(op, "lm_head", biases=False)
        elif (tied_to,) != self._ops[0].path:
            raise NotGpt2(f"layer {op.name} uses the weight of entry {tied_to}, but GPT-2 uses that of the embedding")
        return op

    def _same(self, what: str, value: Any) -> None:
        if self._seen.setdefault(what, value) != value:
            raise NotGpt2(f"its blocks differ in {what} ({self._seen[what]} and {value}), but those of GPT-2 are alike")

    def _note(self, op: Op, name: str, *, turned: bool = False, biases: bool = True) -> None:
        self.pairs += _pairs(op, name, turned=turned)
        width = op.layer.parameters[0].shape[0]
        if biases and op.kind in ("linear", "layer_norm") and len(op.layer.parameters) == 1:
            self.pairs.append(Pair(None, f"{name}.bias", (width,)))


def _pairs(op: Op, name: str, *, turned: bool) -> Iterator[Pair]:
    for ours, parameter in op.parameters:
        is_weight = parameter.name == "weight"
        yield Pair(ours, f"{name}.{parameter.name}", parameter.shape, turned=turned and is_weight)
