from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coordinator.job.schedule_names import default_workers, fewest_micro_batches
from coordinator.plan.memory import predict_stage
from coordinator.plan.memory_limit import MemoryLimit
from coordinator.plan.partition import action_costs, balanced_bounds, layer_flops, parts_name
from coordinator.schedules import SCHEDULES, build
from stages.actions import Program
from stages.errors import InvalidJob
from stages.layers import entry
from stages.spec import ModelSpec, SgdSpec
from stages.trained import performed_lane
from tests.stages.flat import flat_layer


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


def test_parts_of_a_nested_network_are_called_operations() -> None:
    flat = (entry("linear", units=4), entry("relu"))
    nested = (*flat, entry("residual", layers=flat))
    assert [parts_name(ModelSpec(input_shape=(4,), layers=layers, loss="mse")) for layers in (flat, nested)] == [
        "layers",
        "operations",
    ]
    with pytest.raises(InvalidJob, match="9 stages for 2 operations; at most 2"):
        balanced_bounds([1.0, 2.0], 9, parts="operations")


def test_the_first_linear_layer_has_no_input_gradient() -> None:
    layers = (entry("linear", units=100), entry("flatten"), entry("linear", units=100))
    model = ModelSpec(input_shape=(100,), layers=layers, loss="mse")
    assert layer_flops(model) == (2 * 2 * 100 * 100, 0, 3 * 2 * 100 * 100)
    assert tuple(map(sum, action_costs(model))) == (2 * 2 * 100 * 100 + 4000, 0, 3 * 2 * 100 * 100 + 4000)


# memory ----------------------------------------------------------------------------------------------------------

SGD = SgdSpec(learning_rate=0.1, momentum=0.9)


def _needed(model: ModelSpec, program: Program, sizes: list[int], group: int, cut: tuple[int, ...], s: int) -> int:
    """Return the bytes of stage s of the cut, by a walk along the lane for this stage alone."""
    lane = program.lanes[program.placement[s]]
    lane = performed_lane(lane, s + 1 if cut[s + 1] <= model.network.first_trained else 0)
    return predict_stage(model, cut, s, SGD, lane, sizes, group).total


@settings(max_examples=150, deadline=None)
@given(
    kinds=st.text("LLrgf", min_size=1, max_size=7),
    units=st.lists(st.sampled_from([1, 5, 40, 300]), min_size=7, max_size=7),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    group=st.integers(1, 2),
    schedule=st.sampled_from(sorted(SCHEDULES)),
    data=st.data(),
)
def test_the_cut_under_a_memory_limit_is_the_best_of_all_that_fit(
    kinds: str, units: list[int], sizes: list[int], group: int, schedule: str, data: st.DataObject
) -> None:
    """The test tries every cut, with bytes predicted for that cut alone."""
    layers = tuple(flat_layer(c, n) for c, n in zip(kinds, units, strict=False))
    model = ModelSpec(input_shape=(30,), layers=layers, loss="mse")
    n, n_stages = len(layers), data.draw(st.integers(1, len(layers)))
    n_workers = default_workers(schedule, n_stages)
    assume(len(sizes) >= fewest_micro_batches(schedule, n_workers))
    program = build(schedule, n_stages=n_stages, n_micro_batches=len(sizes), n_workers=n_workers)
    costs = tuple(map(sum, action_costs(model)))
    cuts = [(0, *cut, n) for cut in combinations(range(1, n), n_stages - 1)]
    share = [program.placement.count(worker) for worker in program.placement]
    needs = {
        cut: max(_needed(model, program, sizes, group, cut, s) * share[s] for s in range(n_stages)) for cut in cuts
    }
    limit = data.draw(st.sampled_from(sorted(needs.values()))) + data.draw(st.integers(0, 3)) * 64
    fitting = [cut for cut in cuts if needs[cut] <= limit]
    found = balanced_bounds(costs, n_stages, MemoryLimit(model, SGD, program, sizes, group, limit))
    assert found in fitting
    assert _largest(list(costs), found) == min(_largest(list(costs), cut) for cut in fitting)


@settings(max_examples=300, deadline=None)
@given(costs=st.lists(st.integers(0, 6), min_size=1, max_size=9), data=st.data())
def test_of_equally_slow_cuts_the_evenest_is_taken_and_of_those_the_earliest(
    costs: list[int], data: st.DataObject
) -> None:
    n_stages = data.draw(st.integers(1, len(costs)))
    longest = data.draw(st.integers(1, len(costs)))

    def rank(cut: tuple[int, ...]) -> tuple[int, int]:
        sums = [sum(costs[a:b]) for a, b in pairwise(cut)]
        return max(sums), sum(cost * cost for cost in sums)

    cuts = [(0, *cut, len(costs)) for cut in combinations(range(1, len(costs)), n_stages - 1)]
    fitting = [cut for cut in cuts if all(b - a <= longest for a, b in pairwise(cut))] or cuts
    found = balanced_bounds([float(cost) for cost in costs], n_stages, lambda _, first, last: last - first <= longest)
    assert rank(found) == min(map(rank, fitting))
    assert found in fitting


@pytest.mark.parametrize("limit", [2**15, 2**21, 2**40])
def test_two_hundred_layers_are_cut_without_asking_for_every_cut(limit: int) -> None:
    """A walk along the lane for each of the 300,000 possible stages takes minutes."""
    layers = tuple(flat_layer("r" if k % 2 else "L", 64) for k in range(200))
    model = ModelSpec(input_shape=(64,), layers=layers, loss="mse")
    program = build("1f1b", n_stages=16, n_micro_batches=64)
    fits = MemoryLimit(model, SGD, program, [4] * 64, 1, limit)
    asked = 0

    def counted(stage: int, first: int, last: int) -> bool:
        nonlocal asked
        asked += 1
        return fits(stage, first, last)

    bounds = balanced_bounds(tuple(map(sum, action_costs(model))), 16, counted)
    assert asked <= 2 * 16 * 200
    assert len(bounds) == 17
    if limit > 2**15:
        assert all(fits(s, a, b) for s, (a, b) in enumerate(pairwise(bounds)))
