"""Processes that perform one plan after another: each begins anew, with the weights of one process."""

from __future__ import annotations

import contextlib
from typing import Any

from cluster.actors.replanned import ReplannedWorkers
from cluster.data.sources import load_data
from coordinator.plan.blueprint import make_blueprint
from coordinator.train.parity import compare, train_pipeline
from coordinator.train.reference import train_reference
from tests.jobs import digits_job

STEPS = 3


def test_each_plan_of_the_same_processes_trains_the_weights_of_one_process(ray: Any) -> None:
    spec = digits_job(stages=2)
    data = load_data(spec)
    plans = [
        spec,
        spec.replace(schedule="zbv", stages=4, workers=2),
        spec.replace(schedule="gpipe", training__micro_batches=4, weight_grad_group=2),
    ]
    blueprints = [make_blueprint(plan, len(data.train)) for plan in plans]
    workers = ReplannedWorkers(ray, blueprints[0], fingerprint=data.fingerprint())
    with contextlib.closing(workers):
        processes = [place.pid for place in workers.places()]
        for blueprint in [*blueprints, blueprints[0]]:
            workers.perform(blueprint)
            found = train_pipeline(blueprint, workers, data.train, STEPS)
            assert compare(found, train_reference(blueprint.spec, data.train, STEPS)).equal
        assert [place.pid for place in workers.places()] == processes
