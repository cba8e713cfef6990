"""Continues a text with a trained network. Arrays computed for earlier tokens are kept and reused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from stages.arrays import Array
from stages.errors import InvalidData
from stages.layers.base import Past
from stages.layers.embedding import as_tokens
from stages.spec import ModelSpec


class Continuation:
    """A row of tokens that grows. Raises InvalidData if the network has no outputs for each position, or if a position
    depends on later ones.

    `parameter(name)` returns a weight when its operation runs, so that weights can stay on disk: only one layer's
    weights are held at a time. If a row is longer than `model.input`, its first token is dropped. Then each token
    has another position than before, and all tokens are computed again.
    """

    def __init__(self, model: ModelSpec, parameter: Callable[[str], Array]) -> None:
        network = model.network
        if not model.vocabulary or not network.output.positions:
            raise InvalidData("the network has no output for each token, so it cannot continue a text")
        for op in network.ops:
            if (reason := op.layer.why_not_continued()) is not None:
                raise InvalidData(f"layer {op}: {reason}, so the network cannot continue a text")
        self._parameter, self._dtype, self._positions = parameter, np.dtype(model.precision), model.input.positions
        self._output = len(network.ops)
        self._operations = [
            (
                op,
                [network.owners.get(name, name) for name, _ in op.parameters],
                [v for v, last in enumerate(network.last_use) if last == op.index],
            )
            for op in network.ops
        ]
        """For each operation: itself, the names of its weights, and the values that no later operation needs."""
        mixing = [op.index for op in network.ops if op.layer.mixes_positions]
        self._last_mixing = mixing[-1] if mixing else -1
        self._row: list[int] = []
        self._pasts = [Past() for _ in network.ops]

    def outputs(self, tokens: Sequence[int]) -> Array:
        """Return the outputs (vocabulary,) at the last of `tokens`, of which there is at least one. The call is fast if
        `tokens` begins with the tokens of the call before."""
        row = list(tokens[-self._positions :])
        known = len(self._row)
        if known >= len(row) or row[:known] != self._row:
            known = 0
        for past in self._pasts:
            past.length = known
        self._row = row
        return self._forward(row[known:])

    def _forward(self, tokens: Sequence[int]) -> Array:
        n = len(tokens)
        values: dict[int, Array] = {0: self._first(tokens)}
        if self._last_mixing < 0:
            self._keep_last(values)
        for op, names, ended in self._operations:
            x, *others = (values[v] for v in op.inputs)
            if op.layer.is_identity:
                y = x
            else:
                y = np.empty((op.layer.shape_out.features, x.shape[1]), dtype=self._dtype)
                past = self._pasts[op.index]
                past.length += n - x.shape[1]  # in case earlier columns were dropped
                p = [self._parameter(name) for name in names]
                op.layer.continue_forward(x, y, p, past, *others)
                del p
            values[op.index + 1] = y
            for v in ended:
                del values[v]
            if op.index == self._last_mixing:
                self._keep_last(values)
        return values[self._output][:, -1]

    def _first(self, tokens: Sequence[int]) -> Array:
        columns: Array = np.empty((1, len(tokens)), dtype=self._dtype)
        as_tokens(columns)[0] = tokens
        return columns

    def _keep_last(self, values: dict[int, Any]) -> None:
        """Drop all columns but the last: from here on its outputs depend on no other column."""
        for v, array in values.items():
            values[v] = np.ascontiguousarray(array[:, -1:])
