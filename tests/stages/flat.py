"""Flat networks for tests, a letter a layer."""

from __future__ import annotations

from stages.layers import LayerSpec, entry

_NAMES = {"r": "relu", "k": "leaky_relu", "t": "tanh", "s": "sigmoid", "g": "gelu", "f": "flatten"}


def flat_layer(letter: str, units: int) -> LayerSpec:
    """Return the layer of a letter: L is linear with `units` units, G the tanh form of GELU; the table has the
    others."""
    if letter == "L":
        return entry("linear", units=units)
    if letter == "G":
        return entry("gelu", approximate="tanh")
    return entry(_NAMES[letter])
