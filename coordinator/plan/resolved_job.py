"""A job with its cut and its programs, as `coordinator.plan.blueprint` makes it. Apart from that, so that predictions,
which need a blueprint, can help to make one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coordinator.job.spec import JobSpec
from coordinator.plan.partition import Bounds
from coordinator.timing.machine_times import LinkTimes, Source
from stages.actions import Program
from stages.orders import Fault, WorkerSetup
from stages.trained import first_trained_stage


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleGain:
    """What a search gained. `built_in` is the built-in schedule with the shortest predicted step of those that fit into
    the memory, None if none fits; `gain` is by which share the step is shorter. Both hold for times from `source`, with
    messages between workers that take as long as on `link`."""

    built_in: str | None
    gain: float | None
    source: Source
    link: LinkTimes


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
    searched: ScheduleGain | None = None
    """What the search for `schedule: auto` gained."""

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
