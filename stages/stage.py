"""A stage: a group of layers, what it keeps of each micro-batch, its gradients and its update. It knows no Ray.

[Note: ascending weight gradients] Floating-point sums depend on their order. A weight gradient is therefore always
the sum over micro-batches 0, 1, 2, …, taken in groups of `weight_grad_group`, whatever order a schedule asks in:
`backward_weight(j)` marks micro-batch j, and the product of a group runs once all of its members and all earlier
groups are there. So every schedule gives bitwise the same gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stages.arrays import Array, Buffers
from stages.init import draw_weight, dtype_of
from stages.layers import Layer, Linear, build_activation
from stages.layout import plan_layout
from stages.optim import Sgd
from stages.parameters import Parameters
from stages.spec import LayerSpec, ModelSpec, SgdSpec


@dataclass(slots=True)
class _Saved:
    """What one micro-batch left here: memories by number (see Layout), and ∂ℓ/∂f of linear layers by position."""

    memory: dict[int, Array]
    gradients: dict[int, Array] = field(default_factory=dict)


class Stage:
    """Layers `first` … `last` − 1 of a model. Every array argument and result is (features, rows)."""

    def __init__(self, model: ModelSpec, first: int, last: int, sgd: SgdSpec, *, weight_grad_group: int = 1) -> None:
        features = model.features()
        specs = [(k, model.layers[k]) for k in range(first, last) if model.layers[k].kind != "flatten"]
        self.n_in, self.n_out = features[first], features[last]
        self.layer_indices = tuple(range(first, last))
        self._sends_gradient = first > model.first_linear
        self._layout = plan_layout([spec for _, spec in specs], self.n_in, sends_gradient=self._sends_gradient)
        self.parameters = Parameters(_parameter_shapes(specs, features), dtype_of(model))
        self.layers = tuple(self._build(model, k, spec) for k, spec in specs)
        self.optimizer = Sgd(sgd, self.parameters.values, self.parameters.gradients)
        self.buffers = Buffers(dtype_of(model))
        linear = [i for i, layer in enumerate(self.layers) if isinstance(layer, Linear)]
        self._linear = tuple(linear)
        self._bottom = 0 if self._sends_gradient else (linear[0] if linear else len(self.layers))
        self._group = weight_grad_group
        self._saved: dict[int, _Saved] = {}
        self._saved_bytes = 0
        self.peak_saved_bytes = 0
        """The most bytes of activations kept for backward in this step; gradients on their way do not count."""
        self._marked: set[int] = set()
        self._n_micro_batches = 0
        self._next_weight = 0

    def _build(self, model: ModelSpec, index: int, spec: LayerSpec) -> Layer:
        features = model.features()
        if spec.kind != "linear":
            activation = build_activation(spec, index, features[index])
            assert activation is not None, "flatten was left out above"
            return activation
        p, weight, bias = self.parameters, f"{index}.weight", f"{index}.bias"
        draw_weight(model, index, p.value(weight))
        return Linear(
            index,
            p.value(weight),
            p.value(bias) if spec.bias else None,
            p.gradient(weight),
            p.gradient(bias) if spec.bias else None,
        )

    def begin_step(self, n_micro_batches: int) -> None:
        """Forget the last step's gradients and expect this many micro-batches."""
        assert not self._saved, f"micro-batches {sorted(self._saved)} of the last step were never used up"
        self._n_micro_batches = n_micro_batches
        self._next_weight = 0
        self._marked.clear()
        self.peak_saved_bytes = self._saved_bytes = 0

    def forward(self, micro_batch: int, x: Array) -> Array:
        """Run the layers on `x` (n_in, rows) and keep what backward needs. `x` is copied, so it may be any view.

        The result (n_out, rows) is valid until the next call of any method: send or copy it.
        """
        memory, y = self._run(x)
        kept = self._layout.for_input
        for number in [number for number in memory if number not in kept]:
            self.buffers.give(memory.pop(number))
        self._saved[micro_batch] = _Saved(memory)
        self._saved_bytes += sum(array.nbytes for array in memory.values())
        self.peak_saved_bytes = max(self.peak_saved_bytes, self._saved_bytes)
        return y

    def infer(self, x: Array) -> Array:
        """`forward` for evaluation: keeps nothing."""
        memory, y = self._run(x)
        for array in memory.values():
            self.buffers.give(array)
        return y

    def _run(self, x: Array) -> tuple[dict[int, Array], Array]:
        rows, buffer = x.shape[1], self._layout.buffer
        current = self.buffers.take(self.n_in, rows)
        np.copyto(current, x)
        memory = {0: current}
        for i, layer in enumerate(self.layers):
            out = memory.get(buffer[i + 1])
            if out is None:
                out = memory[buffer[i + 1]] = self.buffers.take(layer.n_out, rows)
            layer.forward(current, out)
            current = out
        return memory, current

    def backward_input(self, micro_batch: int, dy: Array) -> Array:
        """∂ℓ/∂(stage input), shape (n_in, rows), from ∂ℓ/∂(stage output) `dy` (n_out, rows), which is copied.

        The result is valid until the next call. If no layer below has parameters, it is the lowest gradient that the
        stage's weights need: nobody asks for ∂ℓ/∂(stage input).
        """
        saved, layout = self._saved[micro_batch], self._layout
        gradient = self.buffers.take(*dy.shape)
        np.copyto(gradient, dy)
        for i in range(len(self.layers) - 1, self._bottom - 1, -1):
            layer, out = self.layers[i], gradient
            if not layer.elementwise:
                saved.gradients[i] = gradient
                if i == self._bottom and not self._sends_gradient:
                    break
                out = self.buffers.take(layer.n_in, dy.shape[1])
            x, y = saved.memory.get(layout.buffer[i], gradient), saved.memory.get(layout.buffer[i + 1], gradient)
            layer.backward_input(x, y, gradient, out)
            gradient = out
        for number in [number for number in saved.memory if number not in layout.for_weight]:
            self._saved_bytes -= saved.memory[number].nbytes
            self.buffers.give(saved.memory.pop(number))
        if not any(gradient is kept for kept in saved.gradients.values()):
            self.buffers.give(gradient)
        return gradient

    def backward_weight(self, micro_batch: int) -> None:
        """Mark the micro-batch for its weight gradient; do the products that are now due.

        See [Note: ascending weight gradients].
        """
        self._marked.add(micro_batch)
        while self._next_weight < self._n_micro_batches:
            stop = min(self._next_weight + self._group, self._n_micro_batches)
            group = range(self._next_weight, stop)
            if not self._marked.issuperset(group):
                return
            self._weight_products([self._saved.pop(j) for j in group], accumulate=self._next_weight > 0)
            self._next_weight = stop

    def _weight_products(self, group: Sequence[_Saved], *, accumulate: bool) -> None:
        for i in self._linear:
            layer = self.layers[i]
            assert isinstance(layer, Linear)
            number = self._layout.buffer[i]
            inputs = [saved.memory.pop(number) for saved in group]
            gradients = [saved.gradients.pop(i) for saved in group]
            self._saved_bytes -= sum(array.nbytes for array in inputs)
            x, dy = self._side_by_side(inputs), self._side_by_side(gradients)
            layer.backward_weight(x, dy, accumulate=accumulate)
            for array in {id(a): a for a in (x, dy, *inputs, *gradients)}.values():
                self.buffers.give(array)

    def _side_by_side(self, arrays: Sequence[Array]) -> Array:
        """The micro-batches' columns in one array; itself where there is one."""
        if len(arrays) == 1:
            return arrays[0]
        joined = self.buffers.take(arrays[0].shape[0], sum(array.shape[1] for array in arrays))
        return np.concatenate(arrays, axis=1, out=joined)

    def update(self, learning_rate: float, scale: float = 1.0) -> None:
        """Apply SGD; `scale` multiplies the gradients. The gradients are used up."""
        self.optimizer.update(learning_rate, scale)

    def discard(self) -> None:
        """Drop what an abandoned step left behind."""
        for saved in self._saved.values():
            for array in (*saved.memory.values(), *saved.gradients.values()):
                self.buffers.give(array)
        self._saved.clear()
        self._saved_bytes = 0

    def first_non_finite_layer(self, x: Array) -> int:
        """The global index of the first layer whose output for the stage input `x` is not finite."""
        current = x
        for layer in self.layers:
            out = np.empty((layer.n_out, current.shape[1]), dtype=self.parameters.values.dtype)
            layer.forward(current, out)
            if not np.isfinite(out).all():
                return layer.index
            current = out
        return self.layer_indices[-1]

    def first_non_finite_gradient(self, micro_batch: int) -> int:
        """The global index of the last layer, the first on the way back, whose ∂ℓ/∂f is not finite."""
        gradients = self._saved[micro_batch].gradients
        broken = [i for i in sorted(gradients, reverse=True) if not np.isfinite(gradients[i]).all()]
        return self.layers[broken[0]].index if broken else self.layer_indices[0]


def _parameter_shapes(
    specs: Sequence[tuple[int, LayerSpec]], features: Sequence[int]
) -> list[tuple[str, tuple[int, ...]]]:
    shapes: list[tuple[str, tuple[int, ...]]] = []
    for index, spec in specs:
        if spec.kind == "linear":
            shapes.append((f"{index}.weight", (spec.units, features[index])))
            if spec.bias:
                shapes.append((f"{index}.bias", (spec.units,)))
    return shapes
