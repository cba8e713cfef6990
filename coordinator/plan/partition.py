"""Cuts layers into stages: contiguous, every layer exactly once, the slowest stage as fast as possible."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from stages.actions import Kind
from stages.errors import InvalidJob
from stages.spec import ModelSpec

Bounds = tuple[int, ...]
"""Stage s is layers `bounds[s]` … `bounds[s + 1]` − 1; starts with 0 and ends with the number of layers."""


class ActionCosts(NamedTuple):
    """The costs of F, I and W of a layer or a stage per row, in operations of a matrix product."""

    forward: float
    input_gradient: float
    weight_gradient: float

    def of(self, kind: Kind) -> float:
        """Return the cost of an action of that kind; a B costs its I and its W."""
        return {
            Kind.FORWARD: self.forward,
            Kind.BACKWARD_INPUT: self.input_gradient,
            Kind.BACKWARD_WEIGHT: self.weight_gradient,
            Kind.BACKWARD: self.input_gradient + self.weight_gradient,
        }[kind]


def action_costs(model: ModelSpec) -> tuple[ActionCosts, ...]:
    """Return the costs of each operation in F, I and W. All predictions of time use this model.

    Element-wise work is weighted by its time compared with a product. The gradient of an operation's input is computed
    only if the input depends on trained parameters, that of its weights only if one of them is trained.
    """
    network, found = model.network, []
    for op in network.ops:
        cost, goes_back = op.layer.cost(), any(network.needs_gradient[v] for v in op.inputs)
        f, i, w = (product + other for product, other in zip(cost.products, cost.elements, strict=True))
        found.append(ActionCosts(f, i if goes_back else 0.0, w if op.trained or not op.layer.parameters else 0.0))
    return tuple(found)


def stage_costs(model: ModelSpec, bounds: Bounds, recompute: Collection[int] = frozenset()) -> tuple[ActionCosts, ...]:
    """Return `action_costs` of each stage; the stages in `recompute` run forward again in I."""
    layers = action_costs(model)
    costs = [ActionCosts(*map(sum, zip(*layers[a:b], strict=True))) for a, b in pairwise(bounds)]
    return tuple(
        cost._replace(input_gradient=cost.input_gradient + cost.forward) if s in recompute else cost
        for s, cost in enumerate(costs)
    )


def layer_costs(model: ModelSpec) -> tuple[float, ...]:
    """Return the cost of each layer per row in F, I and W together; see `layer_flops` for plain operations."""
    return tuple(map(sum, action_costs(model)))


def layer_flops(model: ModelSpec) -> tuple[float, ...]:
    """Return the floating-point operations per row of each operation's matrix products in F, I and W together.

    A linear layer of (out, in) takes 2·out·in in each of the three; the network's first has no I.
    """
    network, found = model.network, []
    for op in network.ops:
        f, i, w = op.layer.cost().products
        goes_back = any(network.needs_gradient[v] for v in op.inputs)
        found.append(f + (w if op.trained or not op.layer.parameters else 0.0) + (i if goes_back else 0.0))
    return tuple(found)


def parts_name(model: ModelSpec) -> str:
    """Return what a stage is made of, in a user's words: `layers` if every entry of model.layers is one operation."""
    return "layers" if len(model.layers) == len(model.network.ops) else "operations"


def explicit_bounds(layers_per_stage: Sequence[int]) -> Bounds:
    """Return the bounds of a list such as [2, 3, 1]."""
    bounds = [0]
    for count in layers_per_stage:
        bounds.append(bounds[-1] + count)
    return tuple(bounds)


def balanced_bounds(
    costs: Sequence[float],
    n_stages: int,
    fits: Callable[[int, int, int], bool] | None = None,
    *,
    parts: str = "layers",
) -> Bounds:
    """Return the cut into `n_stages` non-empty stages whose largest cost is smallest; of several cuts, the evenest.

    `fits(stage, first, stop)` says whether a stage may hold layers `first` … `stop` − 1 (memory). It must be monotone:
    layers that fit also fit without the last of them and, unless that is layer 0, without the first of them. So it is
    called at most twice for each stage and layer. If no cut fits, `fits` is ignored, and the plan names the stage that
    is too large.

    Dynamic programming over (stages, layers), exact for any numbers. Raises InvalidJob if there are more stages than
    layers, which the message calls `parts`.
    """
    n = len(costs)
    if n_stages > n:
        raise InvalidJob([f"pipeline.stages: {n_stages} stages for {n} {parts}; at most {n}"])
    before = np.cumsum([0.0, *costs])
    # for the first s stages over layers 0 … stop − 1: the largest cost and the sum of squared costs; infinite for none
    largest, squares = np.full(n + 1, np.inf), np.full(n + 1, np.inf)
    largest[0] = squares[0] = 0.0
    cuts: list[dict[int, int]] = []
    for s in range(n_stages):
        stops = range(s + 1, n - (n_stages - s - 1) + 1)
        now_largest, now_squares, cut = np.full(n + 1, np.inf), np.full(n + 1, np.inf), dict[int, int]()
        for stop, lowest in zip(stops, _lowest_first(s, stops, fits), strict=True):
            cost = before[stop] - before[lowest:stop]
            most = np.maximum(largest[lowest:stop], cost)
            if not most.size or not np.isfinite(most.min()):
                continue
            total = np.where(most == most.min(), squares[lowest:stop] + cost * cost, np.inf)
            best = int(total.argmin())
            now_largest[stop], now_squares[stop], cut[stop] = most[best], total[best], lowest + best
        largest, squares = now_largest, now_squares
        cuts.append(cut)
    if n not in cuts[-1]:
        return balanced_bounds(costs, n_stages)
    bounds = [n]
    for cut in reversed(cuts):
        bounds.append(cut[bounds[-1]])
    return tuple(reversed(bounds))


def _lowest_first(stage: int, stops: range, fits: Callable[[int, int, int], bool] | None) -> list[int]:
    """Return for each `stop` the lowest first layer with which the stage fits; `stop` itself if there is none."""
    first, only_0 = stage, stage == 0
    if fits is None or fits(stage, first, stops[-1]):
        return [first] * len(stops)
    found = []
    for stop in stops:
        while first < stop and not fits(stage, first, stop):
            first = stop if only_0 else first + 1
        found.append(first)
    return found
