"""`pipeline.schedule: auto`: made for a job's stages and memory, and as exact as every schedule."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from coordinator.job.schedule_names import SCHEDULES
from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.auto_schedule import MOST_FORWARDS, with_searched_schedule
from coordinator.plan.blueprint import Blueprint, make_blueprint
from coordinator.plan.estimate import estimate
from coordinator.plan.measured_costs import measure_layers
from coordinator.plan.partition import ActionCosts
from coordinator.plan.predicted_step import estimated_times, predicted_step
from coordinator.timing.machine_times import Curve, LinkTimes, PartTimes
from coordinator.train.local import LocalWorkers
from coordinator.train.parity import compare, train_pipeline
from coordinator.train.reference import train_reference
from stages.data import Dataset
from stages.errors import InvalidJob

ROWS = 26  # batches of 12, 12 and 2 rows: the last one has fewer micro-batches
RNG = np.random.default_rng(0)
DATA = Dataset(x=RNG.standard_normal((ROWS, 20)).astype("f4"), y=RNG.standard_normal((ROWS, 3)).astype("f4"))


def job(micro_batches: int = 6, memory: int | None = None, **pipeline: Any) -> JobSpec:
    """A job whose stages take unlike times."""
    widths = (96, 24, 160, 32, 48, 3)
    return parse_job(
        {
            "model": {
                "input": [20],
                "layers": [layer for n in widths for layer in ({"linear": {"units": n}}, "tanh")][:-1],
                "loss": "mse",
            },
            "data": {"source": "digits"},  # not read: the tests give the rows
            "training": {
                "epochs": 3,
                "batch_size": 12,
                "micro_batches": micro_batches,
                "optimizer": {"sgd": {"learning_rate": 0.05, "momentum": 0.9}},
            },
            "pipeline": pipeline,
            "resources": {} if memory is None else {"memory_per_worker": memory},
        }
    )


def stage_bytes(blueprint: Blueprint) -> int:
    """The bytes of the largest worker's stages."""
    return max(worker.stages_bytes for worker in estimate(blueprint, data_bytes=0, validation_rows=0).workers)


@pytest.mark.parametrize(("stages", "workers"), [(1, 1), (3, 3), (4, 4), (6, 3), (7, 2)])
def test_the_plan_is_no_longer_than_with_any_built_in_schedule(stages: int, workers: int) -> None:
    """In the model of time that `plan` and runs have, with messages."""
    found = make_blueprint(job(schedule="auto", stages=stages, workers=workers), ROWS)
    times = estimated_times(found.spec, cores=workers)
    steps = {
        name: predicted_step(make_blueprint(job(schedule=name, stages=stages, workers=workers), ROWS), times).seconds
        for name in SCHEDULES
        if name != "dualpipev" or workers <= 3
    }
    step = predicted_step(found, times).seconds
    assert found.program.name == "auto"
    shortest = min(steps.values()) * (1 + 1e-9)  # but for rounding
    assert step <= shortest
    assert found.searched is not None
    assert found.searched.built_in is not None
    assert steps[found.searched.built_in] <= shortest
    assert found.searched.gain == pytest.approx(1 - step / min(steps.values()), abs=1e-12)
    assert (found.searched.source, found.searched.link) == ("estimated", times.local)


def test_of_equally_short_schedules_the_one_that_keeps_least_is_chosen() -> None:
    pipeline: dict[str, Any] = {"stages": 2, "workers": 1}
    found, least = (make_blueprint(job(12, schedule=name, **pipeline), ROWS) for name in ("auto", "1f1b"))
    assert stage_bytes(found) <= stage_bytes(least)


def test_unlike_stages_gain() -> None:
    cut = [2, 2, 2, 2, 2, 1]
    spec = job(schedule="auto", stages=6, workers=3, partition=cut)
    found = make_blueprint(spec.replace(training__batch_size=24_000), 24_000).searched  # messages take little of it
    assert found is not None
    assert found.gain is not None
    assert found.gain > 0.1


@pytest.mark.parametrize(("stages", "workers"), [(2, 2), (5, 3), (6, 3)])
def test_weights_are_bitwise_those_of_one_process(stages: int, workers: int) -> None:
    spec = job(schedule="auto", stages=stages, workers=workers)
    blueprint = make_blueprint(spec, ROWS)
    assert sorted(blueprint.programs) == [2, 6]
    with contextlib.closing(LocalWorkers(blueprint, train=DATA)) as running:
        found = train_pipeline(blueprint, running, DATA, 5)
    assert compare(found, train_reference(job(), DATA, 5)).equal


def test_a_memory_limit_holds_where_the_fastest_does_not() -> None:
    def bytes_of(schedule: str, memory: int | None = None) -> int:
        layers = [4, 2, 2, 3]
        spec = job(12, memory, schedule=schedule, stages=4, partition=layers).replace(training__batch_size=240)
        return stage_bytes(make_blueprint(spec, 240))

    free, least = bytes_of("auto"), bytes_of("1f1b")
    assert least < free
    for limit in (free - 1, (free + least) // 2, least):
        assert bytes_of("auto", limit) <= limit


def test_too_large_a_step_is_one_line() -> None:
    spec = job(schedule="auto", stages=11).replace(training__batch_size=1600, training__micro_batches=1600)
    with pytest.raises(InvalidJob) as caught:
        make_blueprint(spec, 1600)
    assert caught.value.problems == (
        f"pipeline.schedule: auto searches steps of at most {MOST_FORWARDS:,} forward passes, this one has 17,600; "
        "name a schedule",
    )


def test_a_cut_and_a_search_share_the_layers_that_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured_here(*times: float) -> None:
        layers = [ActionCosts(*times)] * 11
        monkeypatch.setattr("coordinator.plan.blueprint.measure_layers", lambda spec, rows: layers)

    spec = job(schedule="auto", stages=3, partition="measured")
    measured_here(1.0, 1.0, 1.0)
    found = make_blueprint(spec, ROWS)
    assert found.bounds == (0, 3, 7, 11), "all layers take equally long"
    assert found.searched is not None
    assert (found.searched.source, found.searched.link.measured) == ("measured", False)
    times = estimated_times(spec, cores=3)
    whole = replace(times, source="measured", parts={(k, k + 1): _part(k + 1.0) for k in range(11)})
    monkeypatch.setattr("coordinator.plan.blueprint.measure_layers", _not_called)
    found = make_blueprint(spec, ROWS, whole)
    assert found.bounds == (0, 6, 9, 11), "later layers take longer in the times that were given"
    assert found.searched is not None
    assert found.searched.link is whole.local


def _part(seconds: float) -> PartTimes:
    return PartTimes(*[Curve(((2.0, seconds),))] * 4)


def _not_called(spec: JobSpec, rows: int) -> list[ActionCosts]:
    raise AssertionError("one measurement is enough")


def test_layers_are_measured_apart() -> None:
    for forward, backward, weight in measure_layers(job(stages=1), rows=2):
        assert min(forward, backward, weight) >= 0
        assert forward + backward + weight > 0


def test_a_search_with_measured_times_takes_slow_links_into_account() -> None:
    spec = job(schedule="auto", stages=3, workers=3, weight_grad_group=2)
    blueprint = make_blueprint(spec, ROWS)
    times = replace(estimated_times(spec, cores=3), local=LinkTimes(latency_s=1e-3))
    found = with_searched_schedule(blueprint, times)
    assert found.program != blueprint.program
    assert sorted(found.programs) == sorted(blueprint.programs)
    assert predicted_step(found, times).seconds < 0.95 * predicted_step(blueprint, times).seconds
    named = make_blueprint(job(schedule="1f1b", stages=3), ROWS)
    assert with_searched_schedule(named, times) is named
