"""`pipeline.schedule: auto`: searches a schedule for the costs of a job's stages and messages, and the memory of its
workers.

The search itself knows one step, with each stage's mean times and one latency. So the programs that it makes, and every
built-in schedule, are then predicted like any plan (coordinator.plan.predicted_step): the answer is never longer than
the best built-in one in the model of time that plans and runs have.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

import numpy as np

from coordinator.job.schedule_names import AUTO, SCHEDULES
from coordinator.job.spec import JobSpec
from coordinator.plan.memory_limit import MemoryLimit, recomputed_stages
from coordinator.plan.partition import Bounds
from coordinator.plan.predicted_step import performed_table, predicted_step, step_costs
from coordinator.plan.resolved_job import Blueprint, ScheduleGain
from coordinator.program.kept import kept
from coordinator.program.table import ActionTable, B, I, W, apart
from coordinator.schedules import restrict, tabulate
from coordinator.schedules.search import Fits, Wanted, search
from coordinator.timing.machine_times import MachineTimes
from stages.errors import InvalidJob, InvalidSchedule

K = TypeVar("K", bound=Hashable)
_ROUNDING = 1e-9
MOST_FORWARDS = 2**14
"""Forward passes, stages × micro-batches, of the largest step that is searched for: some ten seconds."""


def with_searched_schedule(blueprint: Blueprint, times: MachineTimes) -> Blueprint:
    """Return the plan of a job that says `schedule: auto` with the program whose predicted step is shortest for these
    times: its own, those that a search finds, and every built-in schedule that fits into
    `resources.memory_per_worker`. A plan of another job is returned as it is. Raises InvalidJob if the step is too
    large to search.
    """
    if blueprint.spec.pipeline.schedule != AUTO:
        return blueprint
    program = blueprint.program
    forwards = program.n_stages * program.n_micro_batches
    if forwards > MOST_FORWARDS:
        raise InvalidJob(
            [
                f"pipeline.schedule: auto searches steps of at most {MOST_FORWARDS:,} forward passes, this one has "
                f"{forwards:,}; name a schedule"
            ]
        )
    wanted = _wanted(blueprint, times)
    steps = {table.name: (_seconds(plan, times), plan) for table, plan in _built_in(blueprint, wanted)}
    best_name = _best(steps) if steps else None
    tried = [steps[best_name]] if best_name is not None else []
    if blueprint.searched is not None:  # its own program fits
        tried.append((_seconds(blueprint, times), blueprint))
    found = search(wanted) if program.n_workers > 1 else None  # one worker waits for nobody
    if found is not None:
        plan = _performing(blueprint, found.table)
        tried.append((_seconds(plan, times), plan))
    if not tried:  # nothing fits: the plan that was given says why
        return blueprint
    seconds, plan = tried[_best(dict(enumerate(tried)))]
    gain = None if best_name is None else max(0.0, 1 - seconds / steps[best_name][0])
    return replace(plan, searched=ScheduleGain(built_in=best_name, gain=gain, source=times.source, link=times.local))


def _best(tried: Mapping[K, tuple[float, Blueprint]]) -> K:
    """Return the key of the plan with the shortest step, but for rounding; of equal ones, of the one whose workers keep
    least."""
    shortest = min(seconds for seconds, _ in tried.values())
    alike = [key for key, (seconds, _) in tried.items() if seconds <= shortest * (1 + _ROUNDING)]
    return min(alike, key=lambda key: _most_kept(tried[key][1]))


def _most_kept(blueprint: Blueprint) -> int:
    found = kept(performed_table(blueprint), blueprint.spec.pipeline.weight_grad_group)
    return max(found.together)


def _seconds(blueprint: Blueprint, times: MachineTimes) -> float:
    return predicted_step(blueprint, times).seconds


def _wanted(blueprint: Blueprint, times: MachineTimes) -> Wanted:
    """Return what the search is given: each stage's mean times, with what messages take of them."""
    table = performed_table(blueprint)
    costs = step_costs(blueprint, table, times)
    stages = (costs.compute + costs.send + costs.receive).mean(axis=2)
    stages[:, B] = stages[:, I] + stages[:, W]
    return Wanted(
        n_stages=table.n_stages,
        n_micro_batches=table.n_micro_batches,
        n_workers=table.n_workers,
        times=stages,
        latency=float(np.max(costs.late, initial=0.0)),
        fits=fits_into_memory(blueprint.spec, blueprint.bounds, blueprint.micro_batch_rows),
    )


def _built_in(blueprint: Blueprint, wanted: Wanted) -> Iterator[tuple[ActionTable, Blueprint]]:
    """Yield every built-in schedule that fits, with the plan that performs it."""
    for name in SCHEDULES:
        try:
            table = apart(
                tabulate(
                    name,
                    n_stages=wanted.n_stages,
                    n_micro_batches=wanted.n_micro_batches,
                    n_workers=wanted.n_workers,
                )
            )
        except InvalidSchedule:  # DualPipeV with few micro-batches
            continue
        if wanted.fits(table):
            yield table, _performing(blueprint, table)


def _performing(blueprint: Blueprint, table: ActionTable) -> Blueprint:
    """Return the plan with this program instead of its own."""
    whole, spec, bounds = replace(table, name=AUTO).program(), blueprint.spec, blueprint.bounds
    programs = {m: restrict(whole, m) for m in blueprint.programs}
    recompute = recomputed_stages(spec, bounds, whole, blueprint.micro_batch_rows)
    return replace(blueprint, programs=programs, recompute=recompute)


def fits_into_memory(spec: JobSpec, bounds: Bounds, sizes: tuple[int, ...]) -> Fits:
    """Return whether workers have the memory for a program of these stages."""
    limit, group = spec.resources.memory_per_worker, spec.pipeline.weight_grad_group
    if limit is None or spec.pipeline.recompute != "none":  # stages that recompute keep almost nothing
        return lambda table: True
    model, optimizer = spec.model_spec(), spec.optimizer()

    def fits(table: ActionTable) -> bool:
        holds = MemoryLimit(model, optimizer, table.program(), sizes, group, limit)
        return all(holds(stage, first, stop) for stage, (first, stop) in enumerate(pairwise(bounds)))

    return fits
