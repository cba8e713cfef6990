"""Layers → stages: contiguous, every layer exactly once, the slowest stage as fast as it can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stages.errors import InvalidJob
from stages.spec import ModelSpec

Bounds = tuple[int, ...]
"""Stage s is layers `bounds[s]` … `bounds[s + 1]` − 1; starts with 0 and ends with the number of layers."""

_ELEMENTWISE_FLOPS = (
    40.0  # an activation's element costs about as much as this many floating-point operations of a product
)


def layer_costs(model: ModelSpec) -> tuple[float, ...]:
    """What each layer costs per row in F, I and W together, in operations of a matrix product.

    Element-wise work is weighted by what it takes beside a product; see `layer_flops` for plain operations.
    """
    sizes, costs, seen_linear = model.features(), [], False
    for k, layer in enumerate(model.layers):
        if layer.kind == "linear":
            products = 3 if seen_linear else 2
            costs.append(2.0 * products * sizes[k] * sizes[k + 1] + _ELEMENTWISE_FLOPS * sizes[k + 1])
            seen_linear = True
        else:
            ways = 2 if seen_linear else 1  # below the first parameters nothing goes back
            costs.append(0.0 if layer.kind == "flatten" else ways * _ELEMENTWISE_FLOPS * sizes[k])
    return tuple(costs)


def layer_flops(model: ModelSpec) -> tuple[float, ...]:
    """Floating-point operations per row of each layer's matrix products in F, I and W together.

    A linear layer of (out, in) takes 2·out·in in each of the three; the network's first has no I.
    """
    sizes, flops, products = model.features(), [], 2
    for k, layer in enumerate(model.layers):
        flops.append(2.0 * products * sizes[k] * sizes[k + 1] if layer.kind == "linear" else 0.0)
        products = 3 if layer.kind == "linear" else products
    return tuple(flops)


def explicit_bounds(layers_per_stage: Sequence[int]) -> Bounds:
    """Bounds from a list such as [2, 3, 1]."""
    bounds = [0]
    for count in layers_per_stage:
        bounds.append(bounds[-1] + count)
    return tuple(bounds)


def balanced_bounds(
    costs: Sequence[float], n_stages: int, fits: Callable[[int, int, int], bool] = lambda stage, first, last: True
) -> Bounds:
    """The cut into `n_stages` non-empty stages whose largest cost is smallest, ties going to evener ones.

    `fits(stage, first, last)` says whether a stage may hold these layers (memory). Where no cut fits, it is ignored:
    the plan then says which stage is too large. Dynamic programming over (stages, layers), exact for any numbers.
    Raises InvalidJob for more stages than layers.
    """
    n = len(costs)
    if n_stages > n:
        raise InvalidJob([f"pipeline.stages: {n_stages} stages for {n} layers; at most {n}"])
    prefix = [0.0]
    for cost in costs:
        prefix.append(prefix[-1] + cost)
    # best[last]: (largest cost, sum of squared costs, bounds) of the first s stages over layers 0 … last − 1
    best: dict[int, tuple[float, float, Bounds]] = {0: (0.0, 0.0, (0,))}
    for s in range(n_stages):
        following: dict[int, tuple[float, float, Bounds]] = {}
        for last in range(s + 1, n - (n_stages - s - 1) + 1):
            for first, (largest, squares, bounds) in best.items():
                if first >= last or not fits(s, first, last):
                    continue
                cost = prefix[last] - prefix[first]
                candidate = (max(largest, cost), squares + cost * cost, (*bounds, last))
                if last not in following or candidate[:2] < following[last][:2]:
                    following[last] = candidate
        best = following
    if n not in best:
        return balanced_bounds(costs, n_stages)
    return best[n][2]
