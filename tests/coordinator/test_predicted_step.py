"""A job's predicted step: from the times of its operations to those of its stages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.blueprint import make_blueprint
from coordinator.plan.estimate import dry_run
from coordinator.plan.partition import action_costs
from coordinator.plan.predicted_step import computing_by_plan, counted_times, estimated_times, predicted_step
from coordinator.timing.machine_times import Curve, LinkTimes, MachineTimes, PartTimes, Seam

NO_LINK = LinkTimes(latency_s=0.0)


def job(layers: int = 4, clip: float | None = None, **pipeline: Any) -> JobSpec:
    linear = [{"linear": {"units": 6}}, "relu"] * layers
    return parse_job(
        {
            "name": "j",
            "model": {"input": [6], "layers": [*linear, {"linear": {"units": 3}}], "loss": "mse"},
            "data": {"source": "x.npz"},
            "training": {
                "epochs": 1,
                "batch_size": 22,
                "micro_batches": 4,
                "optimizer": {"sgd": {"learning_rate": 0.1}},
                "clip_norm": clip,
            },
            "pipeline": {"stages": 2, **pipeline},
        }
    )


@pytest.mark.parametrize("pipeline", [
    {"schedule": "1f1b"},
    {"schedule": "zb-h1", "weight_grad_group": 2},
    {"schedule": "gpipe", "weight_grad_group": 3},
    {"schedule": "zbv", "stages": 4},
])  # fmt: skip
def test_with_counted_costs_it_is_the_dry_run_of_the_plan(pipeline: dict[str, Any]) -> None:
    spec = job(clip=1.0, **pipeline)  # clipping: one step at a time
    blueprint = make_blueprint(spec, 22)
    step, dry = predicted_step(blueprint, counted_times(spec)), dry_run(blueprint)
    assert step.seconds == pytest.approx(dry.makespan)
    assert step.bubble.total == pytest.approx(dry.bubble)


def test_the_computing_of_each_worker_by_its_plan_is_that_of_the_predicted_step() -> None:
    spec = job(schedule="1f1b", partition=[1, 8])
    blueprint = make_blueprint(spec, 22)
    few, many = computing_by_plan(blueprint)
    assert 0 < few < many, "its share of the layers is smaller"
    causes = predicted_step(blueprint, estimated_times(spec, cores=99)).by_cause
    computing = sum(causes[name] for name in ("forward", "input_gradient", "weight_gradient", "update"))
    assert (few + many) / 2 == pytest.approx(computing)
    wide = job(schedule="1f1b").replace(
        model__layers=[{"linear": {"units": 2000}}, {"linear": {"units": 3}}],
        training__batch_size=1,
        training__micro_batches=1,
    )
    assert computing_by_plan(make_blueprint(wide, 22)) == (), "most of it is the update, which nobody measured"


def test_a_recomputed_stage_runs_forward_again() -> None:
    plain, again = job(clip=1.0, schedule="1f1b"), job(clip=1.0, schedule="1f1b", recompute="full")
    found = [predicted_step(make_blueprint(spec, 22), counted_times(spec)) for spec in (plain, again)]
    forward = found[0].by_cause["forward"]
    backward = [step.by_cause["input_gradient"] + step.by_cause["weight_gradient"] for step in found]
    assert backward[1] == pytest.approx(backward[0] + forward)


def test_a_stage_that_was_measured_counts_as_measured_and_others_are_put_together() -> None:
    spec = job(schedule="1f1b")
    blueprint = make_blueprint(spec, 22)
    times = counted_times(spec)
    constant = Curve(((1.0, 5.0), (2.0, 5.0)))
    first, stop = blueprint.bounds[:2]
    whole = replace(times, parts={**times.parts, (first, stop): PartTimes(*[constant] * 4)})
    assert predicted_step(blueprint, whole).by_worker[0]["forward"] == pytest.approx(4 * 5.0)
    single = sum(cost.forward for cost in action_costs(spec.model_spec())[first:stop])
    assert predicted_step(blueprint, times).by_worker[0]["forward"] == pytest.approx(22 * single)


def test_between_two_operations_of_a_stage_there_is_no_message() -> None:
    spec = job(layers=1, stages=1, schedule="gpipe")  # linear, relu, linear
    each = PartTimes(*[Curve.line(10.0, 2.0)] * 4)
    times = MachineTimes(
        source="measured", parts={(k, k + 1): each for k in range(3)}, seam=Seam(3.0, 2.0, 1.0, 0.125, 0.25),
        local=NO_LINK, cores=1,
    )  # fmt: skip
    part = times.part(0, 3, [6, 6, 6])
    assert part.forward(8) == pytest.approx(3 * (10 + 16) - 2 * 3 - 0.125 * 12 * 8)
    assert part.input_gradient(8) == pytest.approx(3 * (10 + 16) - 2 * 2 - 0.25 * 12 * 8)
    assert part.weight_gradient(8) == pytest.approx(3 * (10 + 16) - 2 * 1)
    assert predicted_step(make_blueprint(spec, 22), times).seconds > 0


def test_slower_links_make_a_longer_step() -> None:
    spec = job(schedule="1f1b")
    blueprint, times = make_blueprint(spec, 22), estimated_times(spec, cores=2)
    slow = replace(times, local=replace(times.local, latency_s=1e-2))
    assert predicted_step(blueprint, slow).seconds > predicted_step(blueprint, times).seconds + 1e-2


def test_workers_on_two_hosts_use_the_link_between_hosts_and_share_no_cores() -> None:
    spec = job(schedule="1f1b")
    blueprint, times = make_blueprint(spec, 22), estimated_times(spec, cores=1)
    assert predicted_step(blueprint, times).by_cause["cores"] > 0
    apart = replace(times, host_of=(0, 1), between=replace(times.local, latency_s=1.0))
    assert predicted_step(blueprint, apart).by_cause["cores"] == 0
    assert predicted_step(blueprint, apart).seconds > 1.0


@given(st.lists(st.tuples(st.integers(1, 99), st.floats(0, 9)), max_size=4, unique_by=lambda point: point[0]))
def test_a_curve_goes_through_its_points(points: list[tuple[int, float]]) -> None:
    curve = Curve(tuple(sorted((float(x), y) for x, y in points)))
    for x, y in curve.points:
        assert curve(x) == pytest.approx(y)


def test_a_curve_between_and_beyond_its_points() -> None:
    assert Curve()(7) == 0
    assert Curve(((4.0, 2.0),))(8) == 4
    assert Curve(((2.0, 1.0), (4.0, 2.0), (8.0, 8.0)))(6) == 5
    assert Curve(((2.0, 1.0), (4.0, 2.0), (8.0, 8.0)))(10) == 11
    assert Curve(((2.0, 1.0), (4.0, 5.0)))(1) == 0  # never below 0
