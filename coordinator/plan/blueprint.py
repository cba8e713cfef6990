"""Resolves a job into the setup of each worker: the cut into stages, and a checked program for every size of step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator.job.schedule_names import AUTO, fewest_micro_batches
from coordinator.job.spec import JobSpec
from coordinator.plan.auto_schedule import search_schedule
from coordinator.plan.measured_costs import measure_layers
from coordinator.plan.memory_limit import MemoryLimit
from coordinator.plan.partition import (
    ActionCosts,
    Bounds,
    action_costs,
    balanced_bounds,
    explicit_bounds,
    parts_name,
)
from coordinator.program.replay import check
from coordinator.schedules import build, restrict
from coordinator.schedules.csv_format import load_csv
from coordinator.schedules.search import Found
from stages.actions import Program
from stages.data import batch_bounds, micro_batch_sizes
from stages.errors import InvalidJob
from stages.orders import Fault, WorkerSetup
from stages.trained import first_trained_stage


@dataclass(frozen=True)
class Blueprint:
    """A job with all that follows from the number of its training rows.

    `programs[m]` is the program of steps with m micro-batches; `rows_by_count[m]` has the rows of each micro-batch in
    the step with the most rows among them.
    """

    spec: JobSpec
    bounds: Bounds
    programs: Mapping[int, Program]
    rows_by_count: Mapping[int, tuple[int, ...]]
    recompute: frozenset[int] = frozenset()
    """Stages that run forward again before I."""
    searched: Found | None = None
    """What the search for `schedule: auto` found."""

    @property
    def program(self) -> Program:
        """The program of a full batch."""
        return self.programs[max(self.programs)]

    @property
    def micro_batch_rows(self) -> tuple[int, ...]:
        """Rows of each micro-batch of a full batch."""
        return self.rows_by_count[max(self.programs)]

    @property
    def n_workers(self) -> int:
        """The number of workers that the job needs."""
        return self.program.n_workers

    @property
    def first_trained(self) -> int:
        """The first stage with parameters (see stages.trained)."""
        return first_trained_stage(self.spec.model_spec(), self.bounds)

    def setup(self, worker: int, faults: Sequence[Fault] = ()) -> WorkerSetup:
        """Return all that worker `worker` needs to know."""
        return WorkerSetup(
            worker=worker,
            model=self.spec.model_spec(),
            optimizer=self.spec.optimizer(),
            bounds=self.bounds,
            placement=self.program.placement,
            lanes={m: program.lanes[worker] for m, program in self.programs.items()},
            micro_batches=self.spec.training.micro_batches,
            weight_grad_group=self.spec.pipeline.weight_grad_group,
            recompute=self.recompute,
            faults=tuple(faults),
        )


def make_blueprint(spec: JobSpec, n_train: int) -> Blueprint:
    """Resolve `spec` for `n_train` training rows. Raises InvalidJob, InvalidSchedule."""
    rows_by_count: dict[int, tuple[int, ...]] = {}
    for first, last in batch_bounds(n_train, spec.training.batch_size):
        sizes = tuple(micro_batch_sizes(last - first, spec.training.micro_batches))
        rows_by_count[len(sizes)] = max(sizes, rows_by_count.get(len(sizes), ()))
    programs = _programs(spec, tuple(rows_by_count))
    full = max(programs)
    sizes = rows_by_count[full]
    costs = _costs(spec, max(sizes))
    bounds = _bounds(spec, programs[full], sizes, [sum(cost) for cost in costs])
    recompute = _recompute(spec, bounds, programs[full], sizes)
    found = search_schedule(spec, bounds, sizes, costs, recompute) if spec.pipeline.schedule == AUTO else None
    if found is not None:
        programs = {m: restrict(found.table.program(), m) for m in programs}
        recompute = _recompute(spec, bounds, programs[full], sizes)
    return Blueprint(spec, bounds, programs, rows_by_count, recompute, found)


def _recompute(spec: JobSpec, bounds: Bounds, program: Program, sizes: tuple[int, ...]) -> frozenset[int]:
    """Return the stages that run forward again; with `auto`, those that do not fit into their worker's memory
    otherwise."""
    wanted, limit = spec.pipeline.recompute, spec.resources.memory_per_worker
    if wanted == "full":
        return frozenset(range(program.n_stages))
    if isinstance(wanted, tuple):
        return frozenset(wanted)
    if wanted == "none" or limit is None:
        return frozenset()
    fits = MemoryLimit(spec.model_spec(), spec.optimizer(), program, sizes, spec.pipeline.weight_grad_group, limit)
    return frozenset(s for s in range(program.n_stages) if not fits(s, bounds[s], bounds[s + 1]))


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


def _costs(spec: JobSpec, rows: int) -> Sequence[ActionCosts]:
    """Return the cost of each operation: measured if the job says so, else counted."""
    return measure_layers(spec, rows) if spec.pipeline.partition == "measured" else action_costs(spec.model_spec())


def _bounds(spec: JobSpec, program: Program, sizes: tuple[int, ...], costs: Sequence[float]) -> Bounds:
    if isinstance(spec.pipeline.partition, tuple):
        return explicit_bounds(spec.pipeline.partition)
    model, limit = spec.model_spec(), spec.resources.memory_per_worker
    if limit is None:
        return balanced_bounds(costs, program.n_stages, parts=parts_name(model))
    fits = MemoryLimit(model, spec.optimizer(), program, sizes, spec.pipeline.weight_grad_group, limit)
    return balanced_bounds(costs, program.n_stages, fits, parts=parts_name(model))
