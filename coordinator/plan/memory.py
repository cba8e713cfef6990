"""Predicts the bytes that each stage of a program holds.

[Note: footprint and occupancy] Two independent things decide what a stage holds:

    its layers   how many buffers of each shape a micro-batch takes in F, I and W (`Footprint`, from the stage's steps)
    its lane     how many micro-batches are in which state at once (`Occupancy`)

For each shape, the pool holds as many buffers as were ever lent at once. That is a maximum over a few states of the
lane: in each, micro-batches times the buffers that each of them takes. So the memory of many cuts of the same layers
can be computed without walking along the lane for each cut.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from coordinator.program.weight_groups import WeightGroups
from stages.actions import Kind, Lane
from stages.compiled import Compiled, compile_stage
from stages.spec import ModelSpec, OptimizerSpec
from stages.steps import Buffer, Step

_Counts = TypeVar("_Counts", bound=tuple[int, ...])


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMemory:
    """Bytes of one stage. `saved`: the peak of activations kept for backward; `pool`: the most that its buffers
    hold."""

    weights: int
    gradients: int
    optimizer: int
    saved: int
    pool: int

    @property
    def total(self) -> int:
        """What the worker needs for the stage: parameters, optimizer state, and the most that its buffers hold."""
        return self.weights + self.gradients + self.optimizer + self.pool


@dataclass(frozen=True, slots=True)
class _Buffers:
    """How many buffers of one shape a micro-batch takes."""

    forward: int
    """The most that F takes at once."""
    for_input: int
    """Those of F that stay in use until I."""
    for_weight: int
    """Those of F that stay in use until W."""
    backward: int
    """The most that I takes at once, besides those of F."""
    gradients: int
    """Those of I that stay in use until W."""
    joined: int
    """The most that a product of W takes to join several micro-batches."""
    together: int
    """The most that I and W take at once if they are done operation by operation, besides those of F."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """The memory of one micro-batch in a stage, `buffers[b]` for each shape b, and of the parameters. `item` is the
    bytes of one number."""

    item: int
    weight_bytes: int
    gradient_bytes: int
    state_bytes: int
    """Bytes of one vector of the optimizer's state. A use of a tied weight and a frozen weight
    add none."""
    buffers: Mapping[Buffer, _Buffers]

    @staticmethod
    def of(model: ModelSpec, first: int, stop: int, *, recompute: bool = False) -> Footprint:
        """Return the footprint of operations `first` … `stop` − 1, from the lists of steps that the stage runs."""
        compiled, item = compile_stage(model.network, first, stop, recompute=recompute), model.itemsize
        kept = Counter(compiled.buffers[s] for s in compiled.kept)
        for_weight = Counter(compiled.buffers[s] for s in compiled.kept_for_weight)
        gradients = Counter(compiled.buffers[s] for s in compiled.gradients)
        forward, backward = _most(compiled, compiled.forward), _most(compiled, compiled.backward_input)
        joined, together = _joined(compiled), _most(compiled, compiled.backward) if recompute else Counter[Buffer]()
        buffers = {
            b: _Buffers(
                forward=forward[b],
                for_input=kept[b] - for_weight[b],
                for_weight=for_weight[b],
                backward=backward[b],
                gradients=gradients[b],
                joined=joined[b],
                together=together[b],
            )
            for b in kept | forward | backward | joined | together
        }
        own = sum(padded * item for padded in _parameter_sizes(model, first, stop, 64 // item))
        ties = [tie for tie in model.network.ties if first <= tie.user.index < stop]
        used = [math.prod(tie.shape) * item for tie in ties]
        copied = sum(size for tie, size in zip(ties, used, strict=True) if not first <= tie.owner.index < stop)
        state = sum(padded * item for padded in _parameter_sizes(model, first, stop, 64 // item, trained=True))
        return Footprint(item, own + copied, own + sum(used), state, buffers)

    def saved(self, for_input: int, for_weight: int) -> int:
        """Return how many numbers are kept while `for_input` rows wait for I and `for_weight` rows wait for W."""
        return sum(b.numbers * (n.for_input * for_input + n.for_weight * for_weight) for b, n in self.buffers.items())

    def pool(self, peaks: Peaks) -> int:
        """Return the numbers per row in the buffers for micro-batches of one size, if the lane has these peaks."""
        total = 0
        for b, n in self.buffers.items():
            most = 0
            taken = (peaks.forward, n.forward), (peaks.backward, n.backward), (peaks.joined, n.joined)
            for states, more in (*taken, (peaks.together, n.together)):
                for a, w, g in states:
                    most = max(most, n.for_input * a + n.for_weight * w + n.gradients * g + more)
            total += b.numbers * most
        return total


def _most(compiled: Compiled, steps: Sequence[Step]) -> Counter[Buffer]:
    """Return for each shape the most buffers that the steps hold at once, besides those taken before them."""
    shape = dict(enumerate(compiled.buffers))
    held, most = Counter[Buffer](), Counter[Buffer]()
    for step in steps:
        for slot, buffer in step.takes:
            shape[slot] = buffer
            held[buffer] += 1
            most[buffer] = max(most[buffer], held[buffer])
        for slot in step.gives:
            held[shape[slot]] -= 1
    return most


def _joined(compiled: Compiled) -> Counter[Buffer]:
    """Return for each shape the most buffers with which a product of W joins several micro-batches at once."""
    shape = dict(enumerate(compiled.buffers))
    most = Counter[Buffer]()
    for step in compiled.backward_weight:
        for buffer, n in Counter(shape[s] for s in (step.x, step.dy, *step.extras) if s >= 0).items():
            most[buffer] = max(most[buffer], n)
    return most


State = tuple[int, int, int]
"""How many micro-batches of one size are between F and I, between F and their product of W, and between I and that
product."""


@dataclass(frozen=True, slots=True)
class Peaks:
    """The states of the lane in which buffers for a certain number of rows are taken: by F, by I, by W to join a group
    for its product, and by I and W together. A state is left out if another is at least as large in all three
    numbers."""

    forward: Sequence[State] = ()
    backward: Sequence[State] = ()
    joined: Sequence[State] = ()
    together: Sequence[State] = ()


@dataclass(frozen=True, slots=True)
class Occupancy:
    """How many micro-batches one stage holds along its lane. `peaks[r]` is for arrays of r rows. A pair of `saved_rows`
    has the rows that wait for I and those that wait for W after an F. A pair is left out if another is at least as
    large in both numbers."""

    peaks: Mapping[int, Peaks]
    saved_rows: Sequence[tuple[int, int]]

    @staticmethod
    def of(
        lane: Lane, stage: int, sizes: Sequence[int], weight_grad_group: int, *, together: bool = False
    ) -> Occupancy:
        """Return the occupancy of a stage by micro-batches with `sizes` rows, in the order of the lane. With
        `together`, a B whose product is due at once does I and W operation by operation."""
        walk = _Walk({r: [0, 0, 0] for r in sizes})
        groups = WeightGroups(len(sizes), weight_grad_group)
        for action in lane:
            if action.stage != stage:
                continue
            r = sizes[action.micro_batch]
            if action.kind is Kind.FORWARD:
                walk.take(0, r)
                walk.move(r, 1, 1, 0)
                walk.saved.add(walk.rows_waiting())
            at_once = together and weight_grad_group == 1 and groups.is_next(action.micro_batch)
            if action.kind is Kind.BACKWARD and at_once:
                walk.take(3, r)
                walk.move(r, -1, 0, 1)  # nothing stays: the loop below removes it at once
            elif action.kind in (Kind.BACKWARD, Kind.BACKWARD_INPUT):
                walk.take(1, r)
                walk.move(r, -1, 0, 1)
            if action.kind in (Kind.BACKWARD, Kind.BACKWARD_WEIGHT):
                made = groups.mark(action.micro_batch)
                for begin in range(made.start, made.stop, weight_grad_group):
                    members = sizes[begin : min(begin + weight_grad_group, made.stop)]
                    if len(members) > 1:
                        walk.take(2, sum(members))
                    for rows in members:
                        walk.move(rows, 0, -1, -1)
        peaks = {r: Peaks(*(_outermost(states) for states in taken)) for r, taken in walk.taken.items()}
        return Occupancy(peaks, _outermost(walk.saved))


@dataclass
class _Walk:
    """The states along a lane, by rows; `taken[rows]` has those in which F, I, a join, and I with W took buffers."""

    now: dict[int, list[int]]
    taken: dict[int, tuple[set[State], ...]] = field(default_factory=dict)
    saved: set[tuple[int, int]] = field(default_factory=set)

    def take(self, by: int, rows: int) -> None:
        a, w, g = self.now.get(rows, (0, 0, 0))
        self.taken.setdefault(rows, (set(), set(), set(), set()))[by].add((a, w, g))

    def move(self, rows: int, *changes: int) -> None:
        for i, change in enumerate(changes):
            self.now[rows][i] += change

    def rows_waiting(self) -> tuple[int, int]:
        return sum(r * n[0] for r, n in self.now.items()), sum(r * n[1] for r, n in self.now.items())


def _outermost(states: set[_Counts]) -> Sequence[_Counts]:
    """Return the states without those that another one reaches in every number."""
    found: list[_Counts] = []
    for one in sorted(states, reverse=True):  # a state that exceeds it in every number comes before it
        if not any(all(b >= a for a, b in zip(one, other, strict=True)) for other in found):
            found.append(one)
    return found


def predict_stage(
    model: ModelSpec,
    bounds: Sequence[int],
    stage: int,
    optimizer: OptimizerSpec,
    lane: Lane,
    sizes: Sequence[int],
    weight_grad_group: int,
    *,
    recompute: bool = False,
) -> StageMemory:
    """Return the bytes of `stage` in a step of micro-batches with `sizes` rows, in the order of its worker's lane."""
    footprint = Footprint.of(model, bounds[stage], bounds[stage + 1], recompute=recompute)
    occupancy = Occupancy.of(lane, stage, sizes, weight_grad_group, together=recompute)
    return stage_memory(footprint, occupancy, optimizer)


def stage_memory(footprint: Footprint, occupancy: Occupancy, optimizer: OptimizerSpec) -> StageMemory:
    """Return the bytes of a stage with these layers and this occupancy."""
    item = footprint.item
    return StageMemory(
        weights=footprint.weight_bytes,
        gradients=footprint.gradient_bytes,
        optimizer=footprint.state_bytes * len(optimizer.state),
        saved=item * max((footprint.saved(*rows) for rows in occupancy.saved_rows), default=0),
        pool=item * sum(rows * footprint.pool(peaks) for rows, peaks in occupancy.peaks.items()),
    )


def inference_bytes(model: ModelSpec, first: int, stop: int, rows: int) -> int:
    """Return the bytes of buffers while operations `first` … `stop` − 1 run forward on `rows` rows and keep nothing."""
    compiled = compile_stage(model.network, first, stop)
    most = _most(compiled, compiled.infer)
    return sum(buffer.numbers * n for buffer, n in most.items()) * rows * model.itemsize


def parameter_count(model: ModelSpec, first: int, stop: int) -> int:
    """Return how many numbers the parameters of operations `first` … `stop` − 1 have."""
    return sum(_parameter_sizes(model, first, stop, 1))


def _parameter_sizes(model: ModelSpec, first: int, stop: int, line: int, *, trained: bool = False) -> list[int]:
    ops, left_out = model.network.ops[first:stop], model.network.frozen if trained else frozenset[str]()
    sizes = [p.numbers for op in ops for name, p in op.parameters if p.tied_to is None and name not in left_out]
    return [-(-size // line) * line for size in sizes]
