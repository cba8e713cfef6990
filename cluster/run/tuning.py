"""Measures a job's candidates (see coordinator.plan.contest) with the workers that `train` uses: Ray actors of one
embedded Ray, or threads."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from cluster.actors.ray_session import workers_session
from cluster.actors.replanned import ReplannedWorkers
from cluster.checkpoints.given_weights import begin_with, check_weights
from cluster.data.sources import JobData
from cluster.run.calibration import calibrate, first_alike
from coordinator.job.schedule_names import AUTO
from coordinator.job.spec import JobSpec
from coordinator.plan.blas_threads import BlasThreads, blas_threads
from coordinator.plan.blueprint import make_blueprint
from coordinator.plan.candidate_memory import RUNTIME_BYTES, MemoryOf
from coordinator.plan.candidates import Candidate, Candidates, Scope, cut_by
from coordinator.plan.choosing import chosen
from coordinator.plan.contest import Budget, Contest
from coordinator.plan.layout import Room, lay_out, workers_with_room
from coordinator.plan.predicted_step import estimated_times, predicted_step
from coordinator.plan.settings import settings_of, with_settings
from coordinator.texts import counted
from coordinator.timing.machine_times import MachineTimes
from coordinator.train.local import LocalWorkers
from coordinator.train.rows import TrainedStep
from coordinator.train.trainer import Trainer
from coordinator.train.workers import Workers
from stages.actions import Program
from stages.errors import NotEnoughResources

_MANY_EPOCHS = 1_000_000
_MOST_BATCHES = 4096
"""Of an epoch that is measured: each turn lists them."""
_FEW = 5
_SHARE_OF_MEMORY = 0.8
_PARTS, _GROUP = (8, 32), 4
"""The numbers of micro-batches, and the weight-gradient group, whose times are measured for all others."""
_SHORTEST_S, _LONGEST_S = 0.01, 0.06  # of a measurement, twice
_MOST_OWN_WORKERS = 4
"""The job's own settings are measured if they have at most so many workers for each that may be chosen; --workers may
ask for so many on the CPUs of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredJob:
    """A job as its candidates are measured: full batches alone, for as long as wanted."""

    spec: JobSpec
    data: JobData
    rows: int
    """Training rows that are used: whole batches, if there is one."""


def to_measure(data: JobData) -> MeasuredJob:
    """Return the job of this data as it is measured."""
    spec = data.spec
    endless = spec.model_copy(
        update={
            "training": spec.training.model_copy(update={"epochs": _MANY_EPOCHS, "steps": None}),
            "recovery": spec.recovery.model_copy(update={"spare": 0}),
        }
    )
    n, batch = len(data.train), spec.training.batch_size
    rows = min(n // batch, _MOST_BATCHES) * batch or n
    return MeasuredJob(spec=endless, data=replace(data, spec=endless), rows=rows)


def most_workers(wanted: int | None, cpus: int) -> int:
    """Return how many workers of `cpus` CPUs may be chosen, at most `wanted`. Raises NotEnoughResources if this machine
    has too few CPUs."""
    here = len(os.sched_getaffinity(0))
    room = workers_with_room([Room(cpus=here, memory=math.inf)], cpus, 0)
    if room == 0:
        raise NotEnoughResources(
            f"resources.cpus_per_worker: {cpus}, but this machine has {counted(here, 'CPU')}; tune measures on one "
            "machine: run it on a host of the cluster"
        )
    if wanted is not None and wanted > _MOST_OWN_WORKERS * room:
        raise NotEnoughResources(
            f"--workers: {counted(wanted, 'worker')} of {counted(cpus, 'CPU')} for a machine with "
            f"{counted(here, 'CPU')}, on which at most {_MOST_OWN_WORKERS * room} can share them; tune measures on one "
            "machine"
        )
    return wanted or room


def candidates_here(
    job: MeasuredJob, most: int, kept: frozenset[str], times: MachineTimes
) -> tuple[Candidates, Candidate | None]:
    """Return the candidates, and the job's own settings if they are measured here. Raises NotEnoughResources if
    the job's own workers must stay, and are too many for this machine."""
    spec, rows = job.spec, job.rows
    blueprint = lay_out(chosen(spec, rows, most, **job.data.for_plan)[0], rows, most, **job.data.for_plan)
    settings = settings_of(blueprint.spec, n_workers=blueprint.n_workers)
    if settings.workers > most and "workers" in kept:
        raise NotEnoughResources(
            f"--keep workers: the job has {counted(settings.workers, 'worker')}, this machine has room for {most}; "
            "tune measures on one machine"
        )
    scope = Scope(most_workers=most, own=settings, kept=kept)
    cut = cut_by(times) if times.source == "measured" else None
    found = Candidates(spec, rows, scope, partial(predicted_step, times=times), cut=cut, times=times)
    return found, found.add(settings) if settings.workers <= _MOST_OWN_WORKERS * most else None


def own_program(job: MeasuredJob, candidate: Candidate) -> Program | None:
    """Return the candidate's program if a job with its settings would have another one: a schedule that was searched
    for the times of this machine. None if the settings say it all; one worker waits for nobody in any program."""
    if candidate.settings.schedule != AUTO or candidate.settings.workers == 1:
        return None
    rebuilt = make_blueprint(with_settings(job.spec, candidate.settings), job.rows)
    return None if rebuilt.program == candidate.blueprint.program else candidate.blueprint.program


def memory_here(data: JobData) -> MemoryOf:
    """Return what counts the memory of candidates that run on this machine."""
    return MemoryOf(**data.for_plan, free=int(_SHARE_OF_MEMORY * _free_memory()))


def times_here(job: MeasuredJob, most: int, seconds: float) -> MachineTimes:
    """Measure for about `seconds` how long the job's layers, updates and messages take for `most` workers on this
    machine, in micro-batches of any size. Raises HostFailed."""
    spec = job.spec
    network, batch = spec.model_spec().network, spec.training.batch_size
    rows = sorted({-(-batch // parts) for parts in _PARTS})
    alike = len({first_alike(network, k) for k in range(len(network.ops))})
    each = seconds / (2 * alike * 2 * len(rows))  # two rounds; one by one, and in groups
    return calibrate(spec, most, rows=rows, groups=[_GROUP], seconds=max(_SHORTEST_S, min(_LONGEST_S, each)))


def times_counted(spec: JobSpec) -> MachineTimes:
    """Return the times of counted operations on this machine's cores."""
    return estimated_times(spec, cores=len(os.sched_getaffinity(0)))


class _Pool:
    """The workers of all trials: one set of processes, or of threads if `ray` is None, for each number of workers."""

    def __init__(self, ray: Any, job: MeasuredJob) -> None:
        self._ray, self._job, spec = ray, job, job.spec
        self._weights, self._begin = check_weights(spec), begin_with(spec) if ray is None else None
        self._sets: dict[int, tuple[Candidate, Workers]] = {}
        """By the number of workers, the one used last at the end."""

    def performing(self, candidate: Candidate) -> Workers:
        """Return workers that perform this candidate. Raises JobFailed."""
        n = candidate.settings.workers
        before, workers = self._sets.pop(n, (None, None))
        if workers is None or before is not candidate:
            try:
                workers = self._changed(workers, candidate)
            except BaseException:
                self._end(workers)
                raise
        self._sets[n] = candidate, workers
        return workers

    def drop(self, candidate: Candidate) -> None:
        """End the workers that perform this candidate, if any."""
        n = candidate.settings.workers
        if n in self._sets and self._sets[n][0] is candidate:
            self._end(self._sets.pop(n)[1])

    def close(self) -> None:
        """End all workers."""
        while self._sets:
            self._end(self._sets.popitem()[1][1])

    def _changed(self, workers: Workers | None, candidate: Candidate) -> Workers:
        """Return workers that begin to perform another candidate."""
        data, blueprint = self._job.data, candidate.blueprint
        if isinstance(workers, ReplannedWorkers):
            workers.perform(blueprint)
            return workers
        self._end(workers)
        if self._ray is None:
            return LocalWorkers(blueprint, train=data.train, parameters=self._begin)
        self._make_room(candidate)
        return ReplannedWorkers(
            *(self._ray, blueprint), fingerprint=data.fingerprint(), checked=data.checked, weights=self._weights
        )

    def _make_room(self, candidate: Candidate) -> None:
        """End sets of processes, those that were not used for the longest time first, until there is memory for these
        and no more than two others."""
        while self._sets and (len(self._sets) > 2 or _needs(candidate) > _SHARE_OF_MEMORY * _free_memory()):
            self._end(self._sets.pop(next(iter(self._sets)))[1])

    @staticmethod
    def _end(workers: Workers | None) -> None:
        if workers is not None:
            workers.close()


class RunningCandidate:
    """A candidate on the workers of a pool, which other candidates use in between."""

    def __init__(self, job: MeasuredJob, candidate: Candidate, pool: _Pool) -> None:
        self._job, self._candidate, self._pool = job, candidate, pool

    def measure(self, steps: int) -> list[float]:
        """Return the seconds of `steps` steps, each from the end of the step before on the last worker to its own end
        on the last worker. A few steps before them do not count. Raises JobFailed."""
        workers = self._pool.performing(self._candidate)
        try:
            run_steps(self._job, self._candidate, workers, 1)  # makes arrays, and touches memory for the first time
            return run_steps(self._job, self._candidate, workers, steps)
        except BaseException:
            self._pool.drop(self._candidate)
            raise

    def close(self) -> None:
        """Leave the workers to the others."""


def run_steps(job: MeasuredJob, candidate: Candidate, workers: Workers, steps: int) -> list[float]:
    """See RunningCandidate.measure. The first step waits for its orders, and if steps are short, the second one waits
    for the first: they do not count."""
    extra = 1 if steps < _FEW else 2
    trainer = Trainer(candidate.blueprint, workers, train_rows=job.rows, max_steps=steps + extra)
    rows = [row for row in trainer.rows() if isinstance(row, TrainedStep)][extra - 1 :]
    ends = [max(report.account.ended for report in row.reports) for row in rows]
    return [after - before for before, after in pairwise(ends)]


def _needs(candidate: Candidate) -> int:
    """Return the bytes that a candidate's processes take."""
    return candidate.settings.workers * ((candidate.memory or 0) + RUNTIME_BYTES)


@contextlib.contextmanager
def contest(
    job: MeasuredJob,
    ranked: Sequence[Candidate],
    own: Candidate | None,
    budget: Budget,
    *,
    own_may_win: bool,
    local: bool,
    notify: Callable[[str], None],
    session: Any = None,
) -> Iterator[Contest]:
    """Yield a contest that is ready to run, with threads (`local`), in the Ray `session`, or in one of its own."""
    counts = {c.settings.workers for c in [*ranked, *([] if own is None else [own])]}
    own_session = partial(workers_session, job.spec, sum(sorted(counts)[-3:]), local=local)
    with (
        BlasThreads(blas_threads(job.spec)) if local else contextlib.nullcontext(),  # each LocalWorkers restores them
        contextlib.nullcontext(session) if session is not None else own_session() as ray,
        contextlib.closing(_Pool(ray, job)) as pool,
    ):

        def start(candidate: Candidate) -> RunningCandidate:
            return RunningCandidate(job, candidate, pool)

        yield Contest(ranked, own, start, budget, time.monotonic, own_may_win=own_may_win, notify=notify)


def _free_memory() -> int:
    """Return the bytes of memory that are free on this machine."""
    with Path("/proc/meminfo").open(encoding="ascii") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
