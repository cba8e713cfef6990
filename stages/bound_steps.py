"""A stage's list of steps, ready to run: with the layers' methods, the parameters, and the pool's shelves.

[Note: calls of a small step] At width 64 a product of 32 columns takes some 3 µs, and a call of a Python function up to
0.1 µs. So what does not change between two micro-batches of the same size is looked up once (`_ready`), and taking an
array from the pool is no call. tests/stages/test_calls.py says how many are left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from stages.arrays import Array, Buffers, copy_into
from stages.layers.base import Call, Moment
from stages.layers.embedding import as_tokens
from stages.living_units import LivingUnits
from stages.prepared import PreparedAction
from stages.steps import Buffer, Do, Step

Memory = list[Any]
"""The array of each slot, or None."""
Owned = Mapping[int, tuple[Array, ...]]
"""Parameters, or their gradients, by operation."""
_Bound = tuple[int, Any, Any, tuple[Any, ...], tuple[Any, ...], int, int, tuple[int, ...], int, int, tuple[int, ...]]
"""A step: its code, the layer's method, the parameters or their gradients, what it takes, what it gives, and the other
fields of the step."""
_CODES = {do: code for code, do in enumerate(Do)}
_FORWARD, _INPUT_GRADIENT, _WEIGHT_GRADIENT, _SUM, _UNPACK, _PACK = _CODES.values()
_SIZES = 8  # numbers of rows that are prepared at a time; a job has two or three


class BoundSteps:
    """Steps of a stage whose slot s has an array of the size `sizes[s]`, from the pool `buffers`.

    `looking`: forward passes also look for dead units.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        sizes: Sequence[Buffer],
        buffers: Buffers,
        values: Owned,
        gradients: Owned,
        looking: LivingUnits | None = None,
    ) -> None:
        self._sizes, self._buffers = sizes, buffers
        self._layers = [None if step.op is None else step.op.layer for step in steps]
        self._steps = [_bind(step, values, gradients, looking) for step in steps]
        self._by_rows: dict[int, list[_Bound]] = {}

    def run(self, memory: Memory, message: Array, rows: int, at: Moment, accumulate: bool = False) -> Array:
        """Perform the steps on one micro-batch of `rows` rows. Return the array of the last PACK among them."""
        new, result = self._buffers.new, message
        for code, call, p, takes, gives, x, y, extras, dy, dx, others in self._by_rows.get(rows) or self._ready(rows):
            for slot, shelf, features, columns in takes:
                memory[slot] = shelf.pop() if shelf else new(features, columns)
            kept = [memory[n] for n in extras] if extras else ()
            if code == _FORWARD:
                if others:
                    call(memory[x], memory[y], kept, p, at, *[memory[n] for n in others])
                else:
                    call(memory[x], memory[y], kept, p, at)
            elif code == _INPUT_GRADIENT:
                call(memory[x], memory[y], kept, memory[dy], memory[dx], p, at)
            elif code == _WEIGHT_GRADIENT:
                call(memory[x], kept, memory[dy], p, accumulate=accumulate)
            elif code == _SUM:
                np.add(memory[x], memory[y], out=memory[dx])
            elif code == _UNPACK:
                _unpack(message, memory, others)
            else:
                result = memory[y]
                if len(others) > 1:
                    np.concatenate([memory[n] for n in others], axis=0, out=result)
            for slot, shelf in gives:
                shelf.append(memory[slot])
                memory[slot] = None
        return result

    def record(self, memory: Memory, message: Array, rows: int, accumulate: bool = False) -> PreparedAction:
        """Do as `run` does in training, and return the calls that do it again with the same arrays."""
        new, result, calls = self._buffers.new, message, list[Call]()
        take_in: Callable[[Array], object] = _takes_nothing
        ready = self._by_rows.get(rows) or self._ready(rows)
        for layer, (code, _, p, takes, gives, x, y, extras, dy, dx, others) in zip(self._layers, ready, strict=True):
            for slot, shelf, features, columns in takes:
                memory[slot] = shelf.pop() if shelf else new(features, columns)
            found: Sequence[Call] = ()
            kept, arrays = [memory[n] for n in extras], [memory[n] for n in others]
            if layer is not None and code == _FORWARD:
                found = layer.forward_calls(memory[x], memory[y], kept, p, *arrays)
            elif layer is not None and code == _INPUT_GRADIENT:
                found = layer.input_gradient_calls(memory[x], memory[y], kept, memory[dy], memory[dx], p)
            elif layer is not None:
                found = layer.weight_gradient_calls(memory[x], kept, memory[dy], p, accumulate=accumulate)
            elif code == _SUM:
                found = (partial(np.add, memory[x], memory[y], memory[dx]),)
            elif code == _UNPACK:
                take_in = partial(_unpack, slots=others, memory=list(memory))
                take_in(message)
            else:
                result = memory[y]
                if len(others) > 1:
                    found = (partial(np.concatenate, arrays, 0, result),)
            for call in found:
                call()
            calls += found
            for slot, shelf in gives:
                shelf.append(memory[slot])
                memory[slot] = None
        return PreparedAction(take_in, tuple(calls), result, list(memory))

    def run_joined(self, group: Sequence[Memory], *, accumulate: bool) -> None:
        """Perform weight-gradient steps on several micro-batches at once, with their columns side by side."""
        give = self._buffers.give
        for _, call, gradients, _, gives, x, _, extras, dy, _, _ in self._steps:
            joined = {n: self._side_by_side([memory[n] for memory in group]) for n in {x, dy, *extras} - {-1}}
            above = joined[dy] if dy >= 0 else joined[x]
            call(joined[x], [joined[n] for n in extras], above, gradients, accumulate=accumulate)
            for array in joined.values():
                give(array)
            for memory in group:
                for slot in gives:
                    give(memory[slot])
                    memory[slot] = None

    def _side_by_side(self, arrays: Sequence[Array]) -> Array:
        """Copy the micro-batches' columns into one array."""
        joined = self._buffers.take(arrays[0].shape[0], sum(array.shape[1] for array in arrays))
        return np.concatenate(arrays, axis=1, out=joined)

    def _ready(self, rows: int) -> list[_Bound]:
        """Return the steps with the pool's shelves for so many rows."""
        if len(self._by_rows) >= _SIZES:
            self._by_rows.clear()
        shelf, sizes, found = self._buffers.shelf, self._sizes, list[_Bound]()
        for code, call, p, takes, gives, *rest in self._steps:
            taken = ((slot, features, columns * rows) for slot, (features, columns) in takes)
            given = ((slot, *sizes[slot]) for slot in gives)
            found.append(
                (
                    *(code, call, p),
                    tuple((slot, shelf(features, columns), features, columns) for slot, features, columns in taken),
                    tuple((slot, shelf(features, columns * rows)) for slot, features, columns in given),
                    *rest,
                )
            )
        self._by_rows[rows] = found
        return found


def _bind(step: Step, values: Owned, gradients: Owned, looking: LivingUnits | None) -> _Bound:
    """Bind a step to its layer's method and parameters."""
    x, y = step.x, step.y
    p: tuple[Array, ...] = ()
    call: Any = None
    if step.op is not None:
        layer, p = step.op.layer, values[step.op.index]
        if step.do is Do.FORWARD:
            call = layer.forward if looking is None else looking.looking(step.op, layer.forward)
        elif step.do is Do.INPUT_GRADIENT:
            call = layer.backward_input
            x, y = (n if n >= 0 else step.dy for n in (x, y))  # a stand-in for what the layer does not read
        else:
            call, p = layer.backward_weight, gradients[step.op.index]
            x = x if x >= 0 else step.dy
    code = _CODES[step.do]
    return code, call, p, step.takes, step.gives, x, y, step.extras, step.dy, step.dx, step.others


def _takes_nothing(message: Array) -> None:
    """W has no message."""


def _unpack(message: Array, memory: Memory, slots: Sequence[int]) -> None:
    """Copy a message's stacked features into the arrays of the slots, or tokens (1, columns) into the only one."""
    if message.dtype.kind != "f":
        np.copyto(as_tokens(memory[slots[0]]), message, casting="same_kind")
        return
    if len(slots) == 1:
        if message.flags.c_contiguous:
            memory[slots[0]][...] = message
        else:
            copy_into(memory[slots[0]], message)
        return
    start = 0
    for slot in slots:
        part = memory[slot]
        part[...] = message[start : start + len(part)]
        start += len(part)
