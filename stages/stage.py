"""A stage: a group of layers, the arrays that it keeps of each micro-batch, its gradients and its update.

[Note: ascending weight gradients] Floating-point sums depend on their order. A weight gradient is therefore always
the sum over micro-batches 0, 1, 2, …, taken in groups of `weight_grad_group`, whatever the order of a schedule:
`backward_weight(j)` marks micro-batch j, and the product of a group runs once all its members are marked and all
earlier groups are done. So every schedule gives bitwise the same gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from stages.actions import Kind
from stages.arrays import Array, Buffers
from stages.bound_steps import BoundSteps, Memory
from stages.compiled import compile_stage
from stages.init import draw_parameter, dtype_of
from stages.layers.base import EVALUATING, TRAINING, Moment
from stages.living_units import LivingUnits
from stages.network import Op
from stages.optimizers import make_optimizer
from stages.parameters import Parameters, Write
from stages.prepared import PreparedStep
from stages.spec import ModelSpec, OptimizerSpec
from stages.steps import Buffer, Do, Step
from stages.tied import TiedUses

_F, _I, _W, _B = Kind  # quicker than looking up a member


class Stage:
    """Operations `first` … `last` − 1 of a model. Every array argument and result is (features, columns).

    With `recompute`, forward keeps only the input and the outputs of residual connections, and the input gradient runs
    forward again, with bitwise the same results.
    """

    def __init__(
        self,
        model: ModelSpec,
        first: int,
        last: int,
        optimizer: OptimizerSpec,
        *,
        weight_grad_group: int = 1,
        recompute: bool = False,
    ) -> None:
        network = model.network
        self.ops = network.ops[first:last]
        self.n_in, self.n_out = network.crossing_features(first), network.crossing_features(last)
        self._columns = network.crossing_columns(first)
        self.compiled = compiled = compile_stage(network, first, last, recompute=recompute)
        shapes = [(name, spec.shape) for op in self.ops for name, spec in op.parameters if spec.tied_to is None]
        self.parameters = Parameters(shapes, dtype_of(model), network.frozen)
        for op in self.ops:
            self._draw(model, op)
        self.uses = TiedUses(model, first, last, self.parameters)
        self._values = {op.index: self._of(op, self.parameters.values, self.uses.values) for op in self.ops}
        self._gradients = {op.index: self._of(op, self.parameters.gradients, self.uses.gradients) for op in self.ops}
        self.buffers = Buffers(dtype_of(model))
        self._forward, self._backward_input = self._bound(compiled.forward), self._bound(compiled.backward_input)
        self._backward_weight = self._bound(compiled.backward_weight)
        self._backward = self._bound(compiled.backward, compiled.sizes_together)
        self._infer = self._bound(compiled.infer, compiled.sizes_to_infer)
        self.living, self._n_slots = LivingUnits(self.ops), compiled.n_slots
        self.optimizer = make_optimizer(optimizer, self.parameters, self.ops)
        self._group = weight_grad_group
        self.draws = any(op.layer.draws for op in self.ops)
        """Whether training draws random numbers, and so reads `at` beyond `training`."""
        self._prepared = PreparedStep(allowed=weight_grad_group == 1 and not recompute and not self.draws)
        self._saved: dict[int, tuple[Memory, Moment, int]] = {}
        self._saved_bytes = 0
        self.peak_saved_bytes = 0
        """The most bytes of activations kept for backward in this step; gradients on their way do not count."""
        self._kept_bytes = model.itemsize * self.compiled.numbers(self.compiled.kept)
        self._weight_bytes = model.itemsize * self.compiled.numbers(self.compiled.kept_for_weight)
        """Bytes kept for each row: `_kept_bytes` until I, `_weight_bytes` until W."""
        self._marked: set[int] = set()
        self._n_micro_batches = 0
        self._next_weight = 0

    def _draw(self, model: ModelSpec, op: Op) -> None:
        stream = np.random.default_rng([model.seed, 0, *op.path])
        for (name, spec), std in zip(op.parameters, op.stds, strict=True):
            if spec.tied_to is None:
                draw_parameter(stream, self.parameters.value(name), std, spec.constant)

    def _of(self, op: Op, flat: Array, used: Mapping[str, Array]) -> tuple[Array, ...]:
        return tuple(
            self.parameters.view(flat, name) if spec.tied_to is None else used[name] for name, spec in op.parameters
        )

    def load(self, values: Mapping[str, Array]) -> None:
        """Take the values of the parameters that `values` has; the others stay as they are."""
        self.fill(lambda name, out: np.copyto(out, values.get(name, out)))

    def fill(self, write: Write) -> None:
        """Write every parameter that the stage holds with `write`."""
        self.parameters.fill(write)
        self.uses.fill(write)

    def begin_again(self, model: ModelSpec) -> None:
        """Draw the parameters again, and clear the optimizer's vectors, as before the first step."""
        for op in self.ops:
            self._draw(model, op)
        self.uses.draw(model.seed)
        for vector in self.optimizer.state.values():
            vector[...] = 0

    def begin_step(self, n_micro_batches: int, *, alike: bool = False) -> None:
        """Forget the last step's gradients and expect this many micro-batches. `alike`: until `trim`, all such steps
        perform the same actions, with the same numbers of rows, in the same order (see [Note: prepared actions])."""
        assert not self._saved, f"micro-batches {sorted(self._saved)} of the last step were never used up"
        self._n_micro_batches = n_micro_batches
        self._next_weight = 0
        self._marked.clear()
        self._prepared.begin_step(n_micro_batches, alike=alike)
        self.peak_saved_bytes = self._saved_bytes = 0

    @cached_property
    def _looking(self) -> BoundSteps:
        """The steps of forward, which also look for dead units."""
        return self._bound(self.compiled.forward, looking=self.living)

    def _bound(
        self, steps: Sequence[Step], sizes: Sequence[Buffer] | None = None, looking: LivingUnits | None = None
    ) -> BoundSteps:
        sizes = self.compiled.buffers if sizes is None else sizes
        return BoundSteps(steps, sizes, self.buffers, self._values, self._gradients, looking)

    def forward(self, micro_batch: int, x: Array, at: Moment = TRAINING, *, look: bool = False) -> Array:
        """Run the layers on `x` (n_in, columns) and keep the arrays that backward needs. `x` is copied, so it may be
        any view. If `look`, look for dead units.

        The result (n_out, columns) is valid until the next call of any method: send or copy it.
        """
        rows, prepared = x.shape[1] // self._columns, self._prepared
        if prepared.used is not None:
            take_in, calls, y, memory = prepared.used[_F, micro_batch]
            take_in(x)
            for call in calls:
                call()
        else:
            memory = [None] * self._n_slots
            if prepared.is_recorded:
                y = prepared.record(_F, micro_batch, self._forward.record(memory, x, rows))
            else:
                y = (self._looking if look else self._forward).run(memory, x, rows, at)
        self._saved[micro_batch] = memory, at, rows
        self._saved_bytes += self._kept_bytes * rows
        if self._saved_bytes > self.peak_saved_bytes:
            self.peak_saved_bytes = self._saved_bytes
        return y

    def infer(self, x: Array, at: Moment = EVALUATING) -> Array:
        """Like `forward`, for evaluation: keeps nothing."""
        return self._infer.run([None] * self._n_slots, x, x.shape[1] // self._columns, at)

    def backward_input(self, micro_batch: int, dy: Array) -> Array:
        """Return ∂ℓ/∂(stage input), given ∂ℓ/∂(stage output) `dy`, which is copied. Each is one array with the
        gradients of those values of the message that have one.

        The result is valid until the next call. If no layer below the stage has parameters, no worker needs
        ∂ℓ/∂(stage input); the result is then the lowest gradient that the stage's own weights need.
        """
        memory, at, rows = self._saved[micro_batch]
        prepared = self._prepared
        if prepared.used is not None:
            take_in, calls, dx, memory = prepared.used[_I, micro_batch]
            take_in(dy)
            for call in calls:
                call()
            self._saved[micro_batch] = memory, at, rows
        elif prepared.is_recorded:
            dx = prepared.record(_I, micro_batch, self._backward_input.record(memory, dy, rows))
        else:
            dx = self._backward_input.run(memory, dy, rows, at)
        self._saved_bytes -= (self._kept_bytes - self._weight_bytes) * rows
        return dx

    def backward_weight(self, micro_batch: int) -> None:
        """Mark the micro-batch for its weight gradient, and compute the products that are now due.

        See [Note: ascending weight gradients].
        """
        if self._group == 1 and micro_batch == self._next_weight:  # the most frequent case
            self._one_product(micro_batch)
            self._next_weight += 1
            if self._next_weight not in self._marked:
                return
        self._marked.add(micro_batch)
        while self._next_weight < self._n_micro_batches:
            stop = min(self._next_weight + self._group, self._n_micro_batches)
            group = range(self._next_weight, stop)
            if not self._marked.issuperset(group):
                return
            self._weight_products(group, accumulate=self._next_weight > 0)
            self._next_weight = stop

    def backward(self, micro_batch: int, dy: Array) -> Array:
        """Do `backward_input`, then `backward_weight`. If the weight products are due at once, both are done operation
        by operation, so that fewer arrays are held at a time; the results are the same."""
        if self._group > 1 or self._next_weight != micro_batch:
            dx = self.backward_input(micro_batch, dy)
            self.backward_weight(micro_batch)
            return dx
        memory, at, rows = self._saved.pop(micro_batch)
        self._saved_bytes -= self._kept_bytes * rows
        dx = self._backward.run(memory, dy, rows, at, micro_batch > 0)
        self._next_weight += 1
        self._marked.add(micro_batch)
        if self._next_weight in self._marked:
            self.backward_weight(self._next_weight)
        return dx

    def _one_product(self, micro_batch: int) -> None:
        memory, at, rows = self._saved.pop(micro_batch)
        prepared, accumulate = self._prepared, micro_batch > 0
        if prepared.used is not None:
            for call in prepared.used[_W, micro_batch].calls:
                call()
        elif prepared.is_recorded:
            no_message = self.parameters.values
            prepared.record(_W, micro_batch, self._backward_weight.record(memory, no_message, rows, accumulate))
        else:
            self._backward_weight.run(memory, self.parameters.values, rows, at, accumulate)
        self._saved_bytes -= self._weight_bytes * rows

    def _weight_products(self, micro_batches: Sequence[int], *, accumulate: bool) -> None:
        if len(micro_batches) == 1:
            self._one_product(micro_batches[0])
            return
        group = [self._saved.pop(j) for j in micro_batches]
        self._backward_weight.run_joined([memory for memory, _, _ in group], accumulate=accumulate)
        self._saved_bytes -= self._weight_bytes * sum(rows for _, _, rows in group)

    def update(self, step: int, learning_rate: float, scale: float = 1.0) -> None:
        """Apply update number `step`, from 1; `scale` multiplies the gradients, which are overwritten."""
        self.optimizer.update(step, learning_rate, scale)

    def discard(self) -> None:
        """Drop the arrays that an abandoned step has left."""
        for memory, _, _ in self._saved.values() if self._prepared.used is None else ():
            for array in memory:
                if array is not None:
                    self.buffers.give(array)
        self._prepared.clear()
        self._saved.clear()
        self._saved_bytes = 0
        self.living.forget()

    def trim(self) -> None:
        """Free the memory of all arrays that are not lent, because arrays of other shapes follow."""
        self._prepared.clear()
        self.buffers.trim()

    def first_non_finite_layer(self, x: Array, at: Moment = EVALUATING) -> Op:
        """Return the first operation whose output for the stage input `x` is not finite; the last one if there is
        none."""
        memory: Memory = [None] * self._n_slots
        for step in self.compiled.infer:
            self._bound((step,), self.compiled.sizes_to_infer).run(memory, x, x.shape[1] // self._columns, at)
            if step.do is Do.FORWARD and step.op is not None and not np.isfinite(memory[step.y]).all():
                return step.op
        return self.ops[-1]

    def first_non_finite_gradient(self, micro_batch: int) -> Op:
        """Return the operation nearest to the output whose ∂ℓ/∂f is not finite, among those that keep it until W."""
        if micro_batch not in self._saved:  # its gradients are no longer kept
            return self.ops[0]
        memory, _, _ = self._saved[micro_batch]
        for step in self.compiled.backward_weight:
            array = memory[step.dy] if step.dy >= 0 else None
            if step.op is not None and array is not None and not np.isfinite(array).all():
                return step.op
        return self.ops[0]
