from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.partition import balanced_bounds, layer_costs, layer_flops
from stages.errors import InvalidJob
from stages.spec import LayerSpec, ModelSpec


def _largest(costs: list[float], bounds: tuple[int, ...]) -> float:
    return max(sum(costs[a:b]) for a, b in pairwise(bounds))


@settings(max_examples=300, deadline=None)
@given(costs=st.lists(st.floats(0, 1e12), min_size=1, max_size=9), data=st.data())
def test_every_layer_is_in_one_stage_and_no_cut_is_better(costs: list[float], data: st.DataObject) -> None:
    n_stages = data.draw(st.integers(1, len(costs)))
    bounds = balanced_bounds(costs, n_stages)
    assert (bounds[0], bounds[-1], len(bounds)) == (0, len(costs), n_stages + 1)
    assert all(a < b for a, b in pairwise(bounds))
    cuts = [(0, *cut, len(costs)) for cut in combinations(range(1, len(costs)), n_stages - 1)]
    best = min(_largest(costs, cut) for cut in cuts)
    assert _largest(costs, bounds) == pytest.approx(best, rel=1e-9)


def test_thirty_layers_over_four_stages_lose_none() -> None:
    bounds = balanced_bounds([1.0] * 30, 4)
    assert [b - a for a, b in pairwise(bounds)] in (
        [8, 8, 7, 7],
        [7, 7, 8, 8],
        [7, 8, 7, 8],
        [8, 7, 8, 7],
        [8, 7, 7, 8],
        [7, 8, 8, 7],
    )


def test_a_stage_that_would_not_fit_is_avoided_where_it_can_be() -> None:
    costs = [1.0, 1.0, 1.0, 1.0]
    assert balanced_bounds(costs, 2) == (0, 2, 4)
    assert balanced_bounds(costs, 2, lambda stage, first, last: not (stage == 0 and last > 1)) == (0, 1, 4)
    assert balanced_bounds(costs, 2, lambda stage, first, last: False) == (0, 2, 4)


def test_more_stages_than_layers_is_refused() -> None:
    with pytest.raises(InvalidJob, match="3 stages for 2 layers; at most 2"):
        balanced_bounds([1.0, 2.0], 3)


def test_the_first_linear_layer_has_no_input_gradient() -> None:
    layers = (LayerSpec(kind="linear", units=100), LayerSpec(kind="flatten"), LayerSpec(kind="linear", units=100))
    model = ModelSpec(input_shape=(100,), layers=layers, loss="mse")
    assert layer_flops(model) == (2 * 2 * 100 * 100, 0, 3 * 2 * 100 * 100)
    assert layer_costs(model) == (2 * 2 * 100 * 100 + 4000, 0, 3 * 2 * 100 * 100 + 4000)
