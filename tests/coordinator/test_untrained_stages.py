"""A stage without parameters in itself or below: no gradient is sent to it, and every plan takes that into account."""

from __future__ import annotations

import contextlib
from itertools import pairwise
from typing import Any

import pytest

from cluster.data.sources import load_data
from coordinator.job.spec import parse_job
from coordinator.plan.blueprint import Blueprint, make_blueprint
from coordinator.plan.estimate import estimate
from coordinator.plan.link_room import link_room
from coordinator.plan.partition import action_costs
from coordinator.program.replay import replay
from coordinator.train.local import LocalWorkers
from coordinator.train.parity import compare, train_pipeline
from coordinator.train.reference import train_reference
from coordinator.train.rows import TrainedStep
from coordinator.train.trainer import Trainer
from stages.actions import Kind
from stages.orders import TrainStep
from stages.trained import first_trained_stage

LAYERS: list[Any] = ["tanh", "flatten", "gelu", {"linear": {"units": 12}}, "relu", {"linear": {"units": 10}}]


def _blueprint(
    partition: tuple[int, ...], schedule: str = "1f1b", rows: int = 1438, clip: float | None = None, **changes: Any
) -> Blueprint:
    document = {
        "model": {"input": [64], "layers": LAYERS, "loss": "cross_entropy"},
        "data": {"source": "digits"},
        "training": {
            "epochs": 1,
            "batch_size": 250,
            "micro_batches": 4,
            "clip_norm": clip,
            "optimizer": {"sgd": {"learning_rate": 0.05, "momentum": 0.9}},
        },
        "pipeline": {"stages": len(partition), "schedule": schedule, "partition": list(partition), **changes},
    }
    return make_blueprint(parse_job(document), rows)


@pytest.mark.parametrize(
    ("bounds", "first"), [((0, 1, 6), 1), ((0, 3, 6), 1), ((0, 2, 4, 6), 1), ((0, 4, 6), 0), ((0, 1, 2, 3, 4), 3)]
)
def test_the_first_trained_stage_is_the_lowest_with_parameters(bounds: tuple[int, ...], first: int) -> None:
    model = _blueprint((6,)).spec.model_spec()
    assert first_trained_stage(model, bounds) == first
    assert first_trained_stage(model, (0, 1, 3)) == 2, "no stage is trained"


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved-1f1b", "zb-h1", "zb-h2", "zbv", "v-half", "v-min"])
@pytest.mark.parametrize("partition", [(1, 5), (3, 3), (1, 1, 4), (1, 2, 1, 2), (1, 1, 1, 1, 1, 1)])
def test_the_weights_are_bitwise_those_of_the_reference_and_no_gradient_goes_to_an_untrained_stage(
    partition: tuple[int, ...], schedule: str, clip: float | None
) -> None:
    blueprint = _blueprint(partition, schedule, clip=clip)
    data = load_data(blueprint.spec)
    with contextlib.closing(LocalWorkers(blueprint, train=data.train)) as workers:
        found = train_pipeline(blueprint, workers, data.train, steps=5)
    assert compare(found, train_reference(blueprint.spec, data.train, 5)).equal
    with contextlib.closing(LocalWorkers(blueprint, train=data.train, validation=data.validation)) as workers:
        trainer = Trainer(blueprint, workers, train_rows=len(data.train), max_steps=2)
        row = next(row for row in trainer.rows() if isinstance(row, TrainedStep))
    assert row.accounts is not None
    assert {(a, b): count for a, b, count, _ in row.accounts["links"]} == _messages(blueprint)
    performed = {(a.stage, a.kind) for report in row.reports for a, _, _ in report.timeline}
    for stage in range(blueprint.first_trained):
        assert {kind for s, kind in performed if s == stage} <= {Kind.FORWARD}
        assert all(report.saved_bytes.get(stage, 0) == 0 for report in row.reports), "it keeps nothing"
    assert trainer.prediction is not None
    assert {(span.action.stage, span.action.kind) for lane in trainer.prediction.spans for span in lane} == performed, (
        "what is predicted is what is done"
    )


def _messages(blueprint: Blueprint) -> dict[tuple[int, int], int]:
    """Return messages by sender and receiver: outputs go to the next stage, gradients to the trained stage before."""
    placement, m = blueprint.program.placement, blueprint.program.n_micro_batches
    found: dict[tuple[int, int], int] = {}
    for s, (here, there) in enumerate(pairwise(placement)):
        for pair in [(here, there)] + [(there, here)] * (s >= blueprint.first_trained):
            if here != there:
                found[pair] = found.get(pair, 0) + m
    return found


class _Counted(LocalWorkers):
    """Records how many steps each submission has."""

    sizes: list[int]

    def submit(self, orders: Any) -> Any:
        self.sizes.append(sum(isinstance(order, TrainStep) for order in orders))
        return super().submit(orders)


@pytest.mark.parametrize(("partition", "bounded"), [((1, 5), True), ((4, 2), False)])
def test_an_untrained_stage_runs_ahead_by_two_steps_at_most(partition: tuple[int, ...], bounded: bool) -> None:
    """No gradient holds up an untrained stage, so the arrays of all steps of a submission could wait for the next
    worker."""
    blueprint = _blueprint(partition)
    blueprint = make_blueprint(blueprint.spec.replace(training__epochs=20), 1438)
    data = load_data(blueprint.spec)
    workers = _Counted(blueprint, train=data.train)
    workers.sizes = []
    with contextlib.closing(workers):
        list(Trainer(blueprint, workers, train_rows=len(data.train)).rows())
    assert sum(workers.sizes) == 120
    assert (max(workers.sizes) == 1) is bounded


def test_the_plan_counts_no_gradient_and_no_work_of_an_untrained_stage() -> None:
    blueprint = _blueprint((1, 5), schedule="gpipe")
    plan = estimate(blueprint, data_bytes=0, validation_rows=0)
    rows, item = blueprint.micro_batch_rows, 4
    largest = max(rows) * 64 * item
    room = link_room(blueprint)
    assert room[1, 0] == 4096, "for the answers of an evaluation"
    links = room[0, 1] + room[1, 0]
    assert plan.workers[0].message_bytes == links, "nothing comes"
    assert plan.workers[1].message_bytes == links + 2 * sum(rows) * 64 * item + sum(rows) * 10 * item + largest
    assert plan.stages[0].memory.saved == 0
    dry = replay(blueprint.program, first_trained=1)
    assert [str(span.action) for span in dry.spans[0]] == ["0F0", "0F1", "0F2", "0F3"]
    assert dry.peak_alive == (0, 4)
    assert dry.makespan == 1 + 4 * 3


def test_an_activation_below_all_parameters_costs_its_forward_only() -> None:
    costs = tuple(map(sum, action_costs(_blueprint((6,)).spec.model_spec())))
    assert costs[0] == 5 * 40.0 * 64, "tanh: F takes as long as five passes"
    assert costs[2] == 13 * 40.0 * 64, "gelu"
    assert costs[4] == 2 * 40.0 * 12, "relu above parameters: F and I"
