"""Resolves a job into the setup of each worker: the cut into stages, and a checked program for every size of step."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from coordinator.job.schedule_names import AUTO, fewest_micro_batches
from coordinator.job.spec import JobSpec
from coordinator.plan.auto_schedule import with_searched_schedule
from coordinator.plan.measured_costs import layers_costs, measure_layers, with_layers
from coordinator.plan.memory_limit import MemoryLimit, recomputed_stages
from coordinator.plan.partition import (
    Bounds,
    action_costs,
    balanced_bounds,
    explicit_bounds,
    parts_name,
)
from coordinator.plan.predicted_step import estimated_times
from coordinator.plan.resolved_job import Blueprint
from coordinator.program.replay import check
from coordinator.schedules import build, restrict
from coordinator.schedules.csv_format import load_csv
from coordinator.timing.machine_times import MachineTimes
from stages.actions import Program
from stages.data import batch_bounds, micro_batch_sizes
from stages.errors import InvalidJob

__all__ = ["Blueprint", "make_blueprint"]


def make_blueprint(spec: JobSpec, n_train: int, times: MachineTimes | None = None) -> Blueprint:
    """Resolve `spec` for `n_train` training rows. Raises InvalidJob, InvalidSchedule.

    `times` are those for which `schedule: auto` is searched and, if they were measured, for which `partition: measured`
    cuts. None: layers are counted, or measured one by one if the partition says so, and messages take as long as on a
    usual machine.
    """
    rows_by_count: dict[int, tuple[int, ...]] = {}
    for first, last in batch_bounds(n_train, spec.training.batch_size):
        sizes = tuple(micro_batch_sizes(last - first, spec.training.micro_batches))
        rows_by_count[len(sizes)] = max(sizes, rows_by_count.get(len(sizes), ()))
    programs = _programs(spec, tuple(rows_by_count))
    full = max(programs)
    sizes = rows_by_count[full]
    measured = _measured(spec, max(sizes), times) if spec.pipeline.partition == "measured" else None
    costs = action_costs(spec.model_spec()) if measured is None else layers_costs(measured, max(sizes))
    bounds = _bounds(spec, programs[full], sizes, [sum(cost) for cost in costs])
    recompute = recomputed_stages(spec, bounds, programs[full], sizes)
    found = Blueprint(spec, bounds, programs, rows_by_count, recompute)
    if spec.pipeline.schedule != AUTO:
        return found
    return with_searched_schedule(found, measured or times or estimated_times(spec, cores=sys.maxsize))


def _programs(spec: JobSpec, counts: tuple[int, ...]) -> dict[int, Program]:
    pipeline = spec.pipeline
    if pipeline.n_workers is not None and not pipeline.schedule.lower().endswith(".csv"):
        name = "zb-h1" if pipeline.schedule == AUTO else pipeline.schedule  # the search begins with a cut for zb-h1
        fewest = fewest_micro_batches(name, pipeline.n_workers)

        def built(m: int) -> Program:
            return build(name, n_stages=pipeline.n_stages, n_micro_batches=m, n_workers=pipeline.n_workers)

        if spec.training.micro_batches < fewest:
            built(spec.training.micro_batches)  # raises, and says why
        return {m: built(m) if m >= fewest else restrict(built(fewest), m) for m in counts}  # a last batch may be small
    whole = load_csv(Path(pipeline.schedule))
    if whole.n_stages != pipeline.n_stages:
        raise InvalidJob([f"pipeline.stages: {pipeline.stages}, but {pipeline.schedule} has {whole.n_stages} stages"])
    if pipeline.workers is not None and whole.n_workers != pipeline.workers:
        raise InvalidJob([f"pipeline.workers: {pipeline.workers}, but {pipeline.schedule} has {whole.n_workers} lines"])
    if max(counts) > whole.n_micro_batches:
        raise InvalidJob(
            [f"training.micro_batches: {max(counts)}, but {pipeline.schedule} has only {whole.n_micro_batches}"]
        )
    programs = {m: restrict(whole, m) for m in counts}
    for program in programs.values():
        check(program)
    return programs


def _measured(spec: JobSpec, rows: int, times: MachineTimes | None) -> MachineTimes:
    """Return these times if they were measured, else those of layers that are measured one by one."""
    if times is not None and times.source == "measured":
        return times
    return with_layers(estimated_times(spec, cores=sys.maxsize), measure_layers(spec, rows), rows)


def _bounds(spec: JobSpec, program: Program, sizes: tuple[int, ...], costs: Sequence[float]) -> Bounds:
    if isinstance(spec.pipeline.partition, tuple):
        return explicit_bounds(spec.pipeline.partition)
    model, limit = spec.model_spec(), spec.resources.memory_per_worker
    if limit is None:
        return balanced_bounds(costs, program.n_stages, parts=parts_name(model))
    fits = MemoryLimit(model, spec.optimizer(), program, sizes, spec.pipeline.weight_grad_group, limit)
    return balanced_bounds(costs, program.n_stages, fits, parts=parts_name(model))
