from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from cluster.checkpoints.given_weights import begin_with
from cluster.data.sources import load_data
from coordinator.train.parity import compare, train_pipeline
from coordinator.train.reference import train_reference
from coordinator.train.rows import EvalRow, StepRow
from coordinator.train.workers import gather
from stages.errors import NotEnoughResources
from tests.jobs import digits_job, start_on_ray

V_SHAPE = """0F0,,,3F0,3B0,0F1,,,3F1,3B1,0B0,,0B1
,1F0,2F0,,,2B0,1B0,1F1,2F1,,2B1,1B1
"""


@pytest.mark.parametrize(
    ("stages", "schedule"),
    [
        (1, "gpipe"),
        (2, "zb-h1"),
        pytest.param(3, "gpipe", marks=pytest.mark.slow),
        pytest.param(5, "1f1b", marks=pytest.mark.slow),
        (5, "interleaved-1f1b"),
    ],
)
def test_actors_train_bitwise_the_weights_of_one_process(ray: Any, stages: int, schedule: str) -> None:
    run = start_on_ray(ray, digits_job(stages=stages, schedule=schedule))
    with contextlib.closing(run.workers):
        found = train_pipeline(run.blueprint, run.workers, run.data.train, steps=17)
    assert compare(found, train_reference(run.spec, run.data.train, 17)).equal


def test_a_v_shaped_csv_schedule_runs_and_trains_the_same(ray: Any, tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text(V_SHAPE)
    spec = digits_job(stages=4, schedule=str(tmp_path / "v.csv")).replace(training__micro_batches=2)
    run = start_on_ray(ray, spec)
    assert run.blueprint.program.placement == (0, 1, 1, 0)
    with contextlib.closing(run.workers):
        found = train_pipeline(run.blueprint, run.workers, run.data.train, steps=15)
    assert compare(found, train_reference(spec, run.data.train, 15)).equal


def test_clipping_is_over_all_stages_and_exact(ray: Any) -> None:
    spec = digits_job(stages=2).replace(training__clip_norm=0.05)
    run = start_on_ray(ray, spec)
    with contextlib.closing(run.workers):
        found = train_pipeline(run.blueprint, run.workers, run.data.train, steps=6)
    assert compare(found, train_reference(spec, run.data.train, 6)).equal
    unclipped = train_reference(digits_job(stages=2), run.data.train, 6)
    assert not compare(found, unclipped).equal


def test_training_begins_with_given_weights(ray: Any, tmp_path: Path) -> None:
    """Each worker reads the weights of its own layers from the file."""
    path = tmp_path / "begin.safetensors"
    before = train_reference(digits_job(), load_data(digits_job()).train, 3)
    save_file(dict(before.parameters), path)
    spec = digits_job(stages=2).replace(model__weights=str(path), seed=99)
    run = start_on_ray(ray, spec)
    with contextlib.closing(run.workers):
        found = train_pipeline(run.blueprint, run.workers, run.data.train, steps=4)
    assert compare(found, train_reference(spec, run.data.train, 4, begin_with(spec))).equal
    assert not compare(found, train_reference(spec, run.data.train, 4)).equal


def test_rows_are_in_order_and_every_sample_is_seen(ray: Any) -> None:
    run = start_on_ray(ray, digits_job(stages=2))
    with contextlib.closing(run.workers):
        rows = run.train()
    steps = [row for row in rows if isinstance(row, StepRow)]
    evaluations = [row for row in rows if isinstance(row, EvalRow)]
    assert [row.step for row in steps] == list(range(1, 29))
    assert [sum(row.samples for row in steps if row.epoch == e) for e in (1, 2)] == [len(run.data.train)] * 2
    assert [(row.step, row.epoch, row.samples) for row in evaluations] == [(14, 1, 359), (28, 2, 359)]
    assert evaluations[-1].accuracy is not None
    assert evaluations[-1].accuracy > 0.85
    assert all(0 <= row.bubble < 1 for row in steps)


def test_weight_gradient_groups_are_exact_too(ray: Any) -> None:
    spec = digits_job(stages=2, weight_grad_group=3)
    run = start_on_ray(ray, spec)
    with contextlib.closing(run.workers):
        found = train_pipeline(run.blueprint, run.workers, run.data.train, steps=5)
        assert list(gather(run.workers, "parameters")) == [
            "0.weight",
            "0.bias",
            "2.weight",
            "2.bias",
            "4.weight",
            "4.bias",
        ]
    assert compare(found, train_reference(spec, run.data.train, 5)).equal


def test_a_cluster_that_is_too_small_says_what_is_missing(ray: Any) -> None:
    spec = digits_job(stages=4).replace(resources__cpus_per_worker=2)
    with pytest.raises(NotEnoughResources, match=r"needs 8 CPUs \(4 workers of 2\), the cluster has 5"):
        start_on_ray(ray, spec)
