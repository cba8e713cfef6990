"""Runs a trained network in one process, operation by operation: it holds the weights of one layer, and the values of
all rows at that place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from stages.arrays import Array
from stages.layers.base import EVALUATING
from stages.layers.embedding import as_tokens
from stages.spec import ModelSpec


def infer(model: ModelSpec, parameter: Callable[[str], Array], x: Any, rows_per_chunk: int) -> Iterator[Array]:
    """Yield the outputs (outputs, columns) of chunks of `x` (rows, numbers of a sample), in order.

    `parameter(name)` returns a weight when its operation runs, so that weights can stay on disk. All chunks pass
    through an operation before the next one starts, so only one layer's weights are in memory at a time.
    """
    network, dtype = model.network, np.dtype(model.precision)
    chunks = [{0: _first(x[a : a + rows_per_chunk], model)} for a in range(0, len(x), rows_per_chunk)]
    owners = network.owners
    for op in network.ops:
        layer, result = op.layer, op.index + 1
        p = tuple(parameter(owners.get(name, name)) for name, _ in op.parameters)
        for values in chunks:
            first, *others = (values[v] for v in op.inputs)
            if layer.is_identity:
                values[result] = first
            else:
                rows = first.shape[1] // layer.shape_in.columns
                y = np.empty((layer.shape_out.features, rows * layer.shape_out.columns), dtype=dtype)
                extras = [np.empty((extra.features, first.shape[1]), dtype=dtype) for extra in layer.extras]
                layer.forward(first, y, extras, p, EVALUATING, *others)
                values[result] = y
            for v in [v for v in values if network.last_use[v] <= op.index]:
                del values[v]
    for values in chunks:
        yield values[len(network.ops)]


def _first(rows: Array, model: ModelSpec) -> Array:
    """Return rows in the layout of the first operation."""
    shape = model.input
    if not shape.vocabulary:
        return np.array(rows.T, order="C")
    tokens: Array = np.empty((1, rows.size), dtype=model.precision)
    as_tokens(tokens)[0] = rows.reshape(-1)
    return tokens
