"""Runs a trained network in one process, operation by operation: it holds the weights of one layer, and the values of
all rows at that place, but the outputs of one chunk of rows only."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from stages.arrays import Array
from stages.layers.base import EVALUATING
from stages.layers.embedding import as_tokens
from stages.network import Op
from stages.spec import ModelSpec


def infer(model: ModelSpec, parameter: Callable[[str], Array], x: Any, rows_per_chunk: int) -> Iterator[Array]:
    """Yield the outputs (outputs, columns) of chunks of `x` (rows, numbers of a sample), in order.

    `parameter(name)` returns a weight when its operation runs, so that weights can stay on disk. All chunks pass
    through an operation before the next one starts, so only one layer's weights are in memory at a time. The last
    operation with weights, and those after it, are done when a chunk's outputs are asked for: outputs may be much
    larger than what they are computed from.
    """
    network = model.network
    chunks = deque({0: _first(x[a : a + rows_per_chunk], model)} for a in range(0, len(x), rows_per_chunk))
    last = max((op.index for op in network.ops if op.layer.parameters), default=0)
    for op in network.ops[:last]:
        p = _weights(model, op, parameter)
        for values in chunks:
            _perform(model, op, p, values)
    tail = [(op, _weights(model, op, parameter)) for op in network.ops[last:]]
    while chunks:
        values = chunks.popleft()
        for op, p in tail:
            _perform(model, op, p, values)
        yield values[len(network.ops)]


def _weights(model: ModelSpec, op: Op, parameter: Callable[[str], Array]) -> tuple[Array, ...]:
    owners = model.network.owners
    return tuple(parameter(owners.get(name, name)) for name, _ in op.parameters)


def _perform(model: ModelSpec, op: Op, p: tuple[Array, ...], values: dict[int, Array]) -> None:
    """Add the operation's result to `values`, and remove what no later operation reads."""
    layer, last_use = op.layer, model.network.last_use
    first, *others = (values[v] for v in op.inputs)
    result = first
    if not layer.is_identity:
        rows, dtype = first.shape[1] // layer.shape_in.columns, np.dtype(model.precision)
        result = np.empty((layer.shape_out.features, rows * layer.shape_out.columns), dtype=dtype)
        extras = [np.empty((extra.features, first.shape[1]), dtype=dtype) for extra in layer.extras]
        layer.forward(first, result, extras, p, EVALUATING, *others)
    values[op.index + 1] = result
    for v in [v for v in values if last_use[v] <= op.index]:
        del values[v]


def _first(rows: Array, model: ModelSpec) -> Array:
    """Return rows in the layout of the first operation."""
    shape = model.input
    if not shape.vocabulary:
        return np.array(rows.T, order="C")
    tokens: Array = np.empty((1, rows.size), dtype=model.precision)
    as_tokens(tokens)[0] = rows.reshape(-1)
    return tokens
