"""Which arrays of a stage exist, which share memory, and which must be kept: decided once, from the layers alone.

A stage with n layers has values v0 … vn: v0 is its input, v(i+1) the output of layer i. An element-wise layer writes
over its input where no backward pass needs that, so `linear, relu, linear` stores only what backward reads:

    v0 ──linear──▸ v1 ──relu──▸ v2 ──linear──▸ v3
    kept           └─ same memory ─┘            free once sent
                      kept

The worker allocates by this plan and `pipetrain plan` predicts memory from it, so the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stages.spec import LayerSpec

# what the backward pass of a layer reads: its output, or its input
_KEEPS_OUTPUT = frozenset({"relu", "leaky_relu", "tanh", "sigmoid"})
_KEEPS_INPUT = frozenset({"linear", "gelu"})


@dataclass(frozen=True, slots=True)
class Layout:
    """`buffer[i]` is the memory of value i; `features[b]` the size of memory b per row.

    `for_input` are the memories that live from F to I, `for_weight` those of them that live on until W;
    `gradients` are the features of the ∂ℓ/∂f that live from I to W, one for each linear layer.
    """

    buffer: tuple[int, ...]
    features: tuple[int, ...]
    for_input: frozenset[int]
    for_weight: frozenset[int]
    gradients: tuple[int, ...]

    @property
    def saved_features(self) -> int:
        """Numbers per row kept from F to I."""
        return sum(self.features[b] for b in self.for_input)


def plan_layout(layers: Sequence[LayerSpec], n_in: int, *, sends_gradient: bool) -> Layout:
    """The layout of a stage of `layers` (without flatten, which does nothing here) on `n_in` features.

    If no layer below has parameters, nobody asks for ∂ℓ/∂(stage input): then `sends_gradient` is False, and layers
    before the stage's first linear one keep nothing.
    """
    sizes = [n_in]
    for layer in layers:
        sizes.append(layer.units if layer.kind == "linear" else sizes[-1])
    linear = [i for i, layer in enumerate(layers) if layer.kind == "linear"]
    bottom = 0
    if not sends_gradient:
        bottom = linear[0] if linear else len(layers)

    kept = {i for i in range(bottom, len(layers)) if layers[i].kind in _KEEPS_INPUT}
    kept |= {i + 1 for i in range(bottom, len(layers)) if layers[i].kind in _KEEPS_OUTPUT}
    buffer, features = [0], [n_in]
    for i, layer in enumerate(layers):
        if layer.kind != "linear" and i not in kept:
            buffer.append(buffer[-1])
        else:
            buffer.append(len(features))
            features.append(sizes[i + 1])
    return Layout(
        buffer=tuple(buffer),
        features=tuple(features),
        for_input=frozenset(buffer[i] for i in kept),
        for_weight=frozenset(buffer[i] for i in linear),
        gradients=tuple(sizes[i + 1] for i in linear),
    )
