"""`pipeline.schedule: auto` for measured times: with messages, weight-gradient groups, and F, I and W as they were
measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coordinator.job.schedule_names import AUTO
from coordinator.plan.auto_schedule import fits_into_memory
from coordinator.plan.blueprint import Blueprint
from coordinator.plan.predicted_step import performed_table, predicted_step, step_costs
from coordinator.program.table import B, I, W
from coordinator.schedules import restrict
from coordinator.schedules.search import Wanted, search
from coordinator.timing.machine_times import MachineTimes


def with_measured_schedule(blueprint: Blueprint, times: MachineTimes) -> Blueprint:
    """Return the plan with the program that a search for these times finds, if its predicted step is shorter; the same
    plan for a job that names its schedule. Stages that run forward again keep theirs."""
    spec = blueprint.spec
    if spec.pipeline.schedule != AUTO or blueprint.recompute:
        return blueprint
    table = performed_table(blueprint)
    costs = step_costs(blueprint, table, times)
    stages = (costs.compute + costs.send + costs.receive).mean(axis=2)
    stages[:, B] = stages[:, I] + stages[:, W]
    found = search(
        Wanted(
            n_stages=table.n_stages,
            n_micro_batches=table.n_micro_batches,
            n_workers=table.n_workers,
            times=stages,
            latency=float(np.max(costs.late, initial=0.0)),
            fits=fits_into_memory(spec, blueprint.bounds, blueprint.micro_batch_rows),
        )
    )
    if found is None:
        return blueprint
    programs = {m: restrict(found.table.program(), m) for m in blueprint.programs}
    other = replace(blueprint, programs=programs, searched=found)
    return min(blueprint, other, key=lambda one: predicted_step(one, times).seconds)
