"""What a layer or a loss allocates for itself beside its arrays is small, since the plan does not count it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stages.layers import KINDS, LayerSpec, entry
from stages.layers.base import Moment
from stages.losses import LOSSES
from stages.shapes import Shape

POSITIONS = 64
LAYERS = [
    *map(entry, ("relu", "leaky_relu", "tanh", "sigmoid", "gelu", "silu", "softplus", "swiglu", "dropout")),
    entry("gelu", approximate="tanh"),
    entry("layer_norm"),
    entry("rms_norm"),
    entry("dot_product_attention", heads=4, kv_heads=4, rotary=True),
    entry("dot_product_attention", heads=4, kv_heads=4, causal=False),
]


def _peak(call: Callable[[], object]) -> int:
    call()  # scratch that is kept, and caches
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("spec", LAYERS, ids=str)
def test_a_layer_allocates_little_beside_its_arrays(spec: LayerSpec) -> None:
    kind, shape, rows = KINDS[spec.kind], Shape(768, POSITIONS), 64
    assert kind.build is not None
    layer = kind.build(spec.options, shape, (0,))
    x = np.random.default_rng(0).standard_normal((768, rows * POSITIONS)).astype(np.float32)
    y, dx = np.empty((layer.shape_out.features, x.shape[1]), np.float32), np.empty_like(x)
    dy, p = np.ones_like(y), [np.ones(spec.shape, np.float32) for spec in layer.parameters]
    extras = [np.empty((extra.features, x.shape[1]), np.float32) for extra in layer.extras]
    spaces = [[np.empty((n, x.shape[1]), np.float32)] if n else [] for n in layer.scratch]
    at = Moment(training=True)
    assert _peak(lambda: layer.forward(x, y, extras + spaces[0], p, at)) <= x.nbytes / 4
    assert _peak(lambda: layer.backward_input(x, y, extras + spaces[1], dy, dx, p, at)) <= x.nbytes / 4


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_allocates_one_array(name: str) -> None:
    """∂ℓ/∂f, beside the outputs and the targets; the others of the lecture's squares are one more."""
    kind: Any = LOSSES[name]
    loss = kind.build(kind.options())
    f = np.random.default_rng(0).standard_normal((200, 20_000)).astype(np.float32)
    targets: Any = np.zeros(f.shape[1], np.int64) if loss.takes_labels else np.full_like(f, 0.5)
    count = loss.count(f.shape[1], len(f))
    more = 2 if name in ("mse", "sum_of_squares", "l1") else 1
    assert _peak(lambda: loss.evaluate(f.copy(), targets, count)) <= (1.25 + more) * f.nbytes
