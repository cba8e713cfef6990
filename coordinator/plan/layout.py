"""The layout of a job: on how many workers it runs, and in how many stages, for the room that a cluster has. No I/O.

[Note: what a layout may change] A number that the job gives stays as it is. `stages: auto` is one stage a worker (two
for the schedules that have two), on as many workers as there is room for. If a job gives the number of stages, and not
that of workers, it begins with the schedule's number of workers; fewer workers share the stages if a node is lost. If
it gives both, or names a schedule file, it has one layout only. Weights do not depend on the layout.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from coordinator.job.schedule_names import AUTO, SCHEDULES, TWO_STAGES_A_WORKER
from coordinator.job.sections import PipelineSection
from coordinator.job.spec import JobSpec
from coordinator.plan.blueprint import Blueprint, make_blueprint
from coordinator.plan.estimate import dry_run, estimate
from stages.errors import InvalidJob, InvalidSchedule

_MOST_TRIED = 32
"""So many layouts are planned and compared; of more, so many that are evenly apart."""
_SAME = 1 + 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What workers may take of one node: CPUs, and bytes of memory."""

    cpus: float
    memory: float


class PipelineLayout(NamedTuple):
    """So many stages on so many workers."""

    stages: int
    workers: int


def workers_with_room(nodes: Iterable[Room], cpus: int, memory: float) -> int:
    """Return how many workers of `cpus` CPUs and `memory` bytes fit, each on one node."""
    return sum(
        max(0, int(min(node.cpus // cpus, node.memory // memory if memory else node.cpus // cpus))) for node in nodes
    )


def may_change(pipeline: PipelineSection) -> bool:
    """Whether the job may run on another number of workers, see [Note: what a layout may change]."""
    return pipeline.workers is None and pipeline.schedule in (*SCHEDULES, AUTO)


def layouts(pipeline: PipelineSection, n_parts: int, room: int) -> list[PipelineLayout]:
    """Return the layouts with room for `room` workers, the one with the most workers first; none if none has room.
    `n_parts` is the number of layers between which the network can be cut."""
    each = 2 if pipeline.schedule in TWO_STAGES_A_WORKER else 1
    if not may_change(pipeline):
        workers = pipeline.n_workers or 0
        if pipeline.stages != "auto":
            return [PipelineLayout(pipeline.stages, workers)] if workers <= room else []
        return [PipelineLayout(min(n_parts, each * workers), workers)] if workers <= min(room, n_parts) else []
    if pipeline.stages != "auto":
        most = min(room, pipeline.n_workers or 0)
        return [PipelineLayout(pipeline.stages, workers) for workers in range(most, 0, -1)]
    most = min(room, -(-n_parts // each))
    return [PipelineLayout(min(n_parts, each * workers), workers) for workers in range(most, 0, -1)]


def with_layout(spec: JobSpec, layout: PipelineLayout) -> JobSpec:
    """Return the job with these numbers of stages and workers."""
    pipeline = spec.pipeline
    if pipeline.stages == layout.stages and pipeline.n_workers in (None, layout.workers):
        return spec
    return spec.replace(stages=layout.stages, workers=layout.workers)


def lay_out(spec: JobSpec, n_train: int, room: int, *, data_bytes: int = 0, validation_rows: int = 0) -> Blueprint:
    """Return the plan with which a job begins if there is room for `room` workers. Raises InvalidJob,
    InvalidSchedule.

    A job that gives the number of its stages needs all its workers, whatever room there is. With `auto` it gets at
    least one worker.
    """
    if spec.pipeline.stages != "auto":
        return make_blueprint(spec, n_train)
    found = best(spec, n_train, max(1, room), data_bytes=data_bytes, validation_rows=validation_rows)
    if found is not None:
        return found
    n_parts = len(spec.model_spec().network.ops)  # nothing fits into the memory: the plan of the most workers says why
    widest = layouts(spec.pipeline, n_parts, max(1, room, spec.pipeline.workers or 0))
    return make_blueprint(with_layout(spec, widest[0]), n_train)


def layout_without_data(spec: JobSpec, room: int) -> PipelineLayout:
    """Return the layout that `lay_out` will choose for a job whose data is not read yet; if the network is known only
    after that, the one with a stage for each layer that is listed, if there is room."""
    if not spec.is_resolved:
        return layouts(spec.pipeline, len(spec.model.layers), max(1, room, spec.pipeline.workers or 0))[0]
    found = lay_out(spec, spec.training.batch_size, room)
    return PipelineLayout(found.program.n_stages, found.n_workers)


def best(spec: JobSpec, n_train: int, room: int, *, data_bytes: int = 0, validation_rows: int = 0) -> Blueprint | None:
    """Return the plan whose predicted step is shortest, of equal ones that with the fewest workers; None if no layout
    has room, or if none fits into the memory of its workers."""
    chosen, shortest = None, float("inf")
    compared = spec.replace(partition="auto") if spec.pipeline.partition == "measured" else spec  # measuring takes long
    compared = compared.replace(schedule="zb-h1") if spec.pipeline.schedule == AUTO else compared  # so does searching
    for layout in _tried(layouts(spec.pipeline, len(spec.model_spec().network.ops), room)):
        try:
            blueprint = make_blueprint(with_layout(compared, layout), n_train)
        except (InvalidJob, InvalidSchedule):  # too few micro-batches for so many workers
            continue
        limited = spec.resources.memory_per_worker is not None
        if limited and estimate(blueprint, data_bytes=data_bytes, validation_rows=validation_rows).refusals:
            continue
        makespan = dry_run(blueprint).makespan
        if makespan <= shortest * _SAME:
            chosen, shortest = layout, min(makespan, shortest)
    return None if chosen is None else make_blueprint(with_layout(spec, chosen), n_train)


def _tried(found: list[PipelineLayout]) -> list[PipelineLayout]:
    n = len(found)
    if n <= _MOST_TRIED:
        return found
    return [found[k * (n - 1) // (_MOST_TRIED - 1)] for k in range(_MOST_TRIED)]
