"""A trained network used in one process, a layer at a time: memory for one layer, and for all rows once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from stages.arrays import Array
from stages.layers import Linear, build_activation
from stages.spec import ModelSpec


def infer(model: ModelSpec, parameter: Callable[[str], Array], x: Array, rows_per_chunk: int) -> Iterator[Array]:
    """Outputs (outputs, rows) of chunks of `x` (rows, features), in order.

    `parameter(name)` gives the weights, one call a layer, so that they may lie on disk. Chunks pass all together
    through each layer: only one layer's weights are there at a time.
    """
    chunks = [np.array(x[a : a + rows_per_chunk].T, order="C") for a in range(0, len(x), rows_per_chunk)]
    sizes = model.features()
    for k, spec in enumerate(model.layers):
        if spec.kind == "linear":
            weight = parameter(f"{k}.weight")
            bias = parameter(f"{k}.bias") if spec.bias else None
            layer = Linear(k, weight, bias, weight, bias)  # gradients are not asked for
            for i, chunk in enumerate(chunks):
                out = np.empty((layer.n_out, chunk.shape[1]), dtype=weight.dtype)
                layer.forward(chunk, out)
                chunks[i] = out
            continue
        activation = build_activation(spec, k, sizes[k])
        if activation is not None:
            for chunk in chunks:
                activation.forward(chunk, chunk)
    yield from chunks
