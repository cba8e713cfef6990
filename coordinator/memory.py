"""Predicts the bytes that each stage of a program holds, by walking its lanes with the stages' own layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from stages.actions import Action, Kind, Lane
from stages.layout import Layout, plan_layout
from stages.spec import LayerSpec, ModelSpec, SgdSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMemory:
    """Bytes of one stage. `saved`: the peak of activations kept for backward; `pool`: what its buffers come to hold."""

    weights: int
    gradients: int
    optimizer: int
    saved: int
    pool: int

    @property
    def total(self) -> int:
        """What the worker needs for the stage: parameters, and buffers at their fullest."""
        return self.weights + self.gradients + self.optimizer + self.pool


def predict_stage(
    model: ModelSpec,
    bounds: Sequence[int],
    stage: int,
    sgd: SgdSpec,
    lane: Lane,
    sizes: Sequence[int],
    weight_grad_group: int,
) -> StageMemory:
    """Bytes of `stage` for one step of micro-batches with `sizes` rows, performed in the order of its worker's lane."""
    first, last = bounds[stage], bounds[stage + 1]
    item = 4 if model.precision == "float32" else 8
    parameters = sum(padded * item for padded in _parameter_sizes(model, first, last, 64 // item))
    pool = _Pool(item)
    walker = _Walker(model, first, last, pool, list(sizes), weight_grad_group)
    for action in lane:
        if action.stage == stage:
            walker.perform(action)
    return StageMemory(
        weights=parameters,
        gradients=parameters,
        optimizer=parameters if sgd.momentum else 0,
        saved=walker.saved_peak,
        pool=pool.held,
    )


def inference_bytes(model: ModelSpec, first: int, last: int, rows: int) -> int:
    """Bytes of buffers while layers `first` … `last` − 1 run forward on `rows` rows and keep nothing."""
    layers = [spec for spec in model.layers[first:last] if spec.kind != "flatten"]
    layout = plan_layout(layers, model.features()[first], sends_gradient=first > model.first_linear)
    return sum(layout.features) * rows * (4 if model.precision == "float32" else 8)


def parameter_count(model: ModelSpec, first: int, last: int) -> int:
    """Numbers in the parameters of layers `first` … `last` − 1."""
    return sum(_parameter_sizes(model, first, last, 1))


def _parameter_sizes(model: ModelSpec, first: int, last: int, line: int) -> list[int]:
    sizes, features = [], model.features()
    for k in range(first, last):
        spec = model.layers[k]
        if spec.kind == "linear":
            sizes.append(spec.units * features[k])
            if spec.bias:
                sizes.append(spec.units)
    return [-(-size // line) * line for size in sizes]


class _Pool:
    """The arithmetic of stages.arrays.Buffers, without the arrays."""

    def __init__(self, item: int) -> None:
        self.item = item
        self._lent: Counter[tuple[int, int]] = Counter()
        self._most: Counter[tuple[int, int]] = Counter()

    def take(self, features: int, rows: int) -> tuple[int, int]:
        shape = (features, rows)
        self._lent[shape] += 1
        self._most[shape] = max(self._most[shape], self._lent[shape])
        return shape

    def give(self, shape: tuple[int, int]) -> None:
        self._lent[shape] -= 1

    @property
    def held(self) -> int:
        """Bytes that the pool never gives back: the most lent of each shape."""
        return sum(features * rows * count * self.item for (features, rows), count in self._most.items())


@dataclass
class _Walker:
    """Follows Stage.forward, backward_input and backward_weight, buffer by buffer."""

    model: ModelSpec
    first: int
    last: int
    pool: _Pool
    sizes: list[int]
    group: int
    _marked: set[int] = field(default_factory=set)
    _next: int = 0
    _saved: int = 0
    saved_peak: int = 0

    def __post_init__(self) -> None:
        features = self.model.features()
        self.n_in, self.n_out = features[self.first], features[self.last]
        self.specs: list[LayerSpec] = [s for s in self.model.layers[self.first : self.last] if s.kind != "flatten"]
        self.sends_gradient = self.first > self.model.first_linear
        self.layout: Layout = plan_layout(self.specs, self.n_in, sends_gradient=self.sends_gradient)
        self.linear = [i for i, spec in enumerate(self.specs) if spec.kind == "linear"]

    def perform(self, action: Action) -> None:
        rows = self.sizes[action.micro_batch]
        if action.kind is Kind.FORWARD:
            self._forward(rows)
        if action.kind in (Kind.BACKWARD, Kind.BACKWARD_INPUT):
            self._backward_input(rows)
        if action.kind in (Kind.BACKWARD, Kind.BACKWARD_WEIGHT):
            self._backward_weight(action.micro_batch)

    def _forward(self, rows: int) -> None:
        for features in self.layout.features:
            self.pool.take(features, rows)
        for number, features in enumerate(self.layout.features):
            if number not in self.layout.for_input:
                self.pool.give((features, rows))
        self._saved += self.layout.saved_features * rows * self.pool.item
        self.saved_peak = max(self.saved_peak, self._saved)

    def _backward_input(self, rows: int) -> None:
        layout, sizes = self.layout, [self.n_in, *(0 for _ in self.specs)]
        for i, spec in enumerate(self.specs):
            sizes[i + 1] = spec.units if spec.kind == "linear" else sizes[i]
        gradient, kept = self.pool.take(self.n_out, rows), False
        bottom = 0 if self.sends_gradient else (self.linear[0] if self.linear else len(self.specs))
        for i in range(len(self.specs) - 1, bottom - 1, -1):
            if self.specs[i].kind != "linear":
                continue
            if i == bottom and not self.sends_gradient:
                kept = True
                break
            gradient = self.pool.take(sizes[i], rows)
        for number in layout.for_input - layout.for_weight:
            self._saved -= layout.features[number] * rows * self.pool.item
            self.pool.give((layout.features[number], rows))
        if not kept:
            self.pool.give(gradient)

    def _backward_weight(self, micro_batch: int) -> None:
        self._marked.add(micro_batch)
        while self._next < len(self.sizes):
            group = range(self._next, min(self._next + self.group, len(self.sizes)))
            if not self._marked.issuperset(group):
                return
            self._products([self.sizes[j] for j in group])
            self._next = group.stop

    def _products(self, rows: list[int]) -> None:
        for position, i in enumerate(self.linear):
            x, dy = self.layout.features[self.layout.buffer[i]], self.layout.gradients[position]
            self._saved -= x * sum(rows) * self.pool.item
            joined = [self.pool.take(features, sum(rows)) for features in (x, dy) if len(rows) > 1]
            for shape in joined:
                self.pool.give(shape)
            for r in rows:
                self.pool.give((x, r))
                self.pool.give((dy, r))
