"""The facts of a running job that a terminal shows, from the rows of its metrics and from the service's figures."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.run.worker_times import COMPUTE, WAITS, Times, bubble_of
from coordinator.timing.durations import STEP_MEAN, STEP_MEDIAN, Durations
from coordinator.timing.epoch_means import EpochMeans
from coordinator.timing.series import RECENT_S, RecentSteps, Series
from coordinator.train.rows import EvalRow, Row, StepRow, take_row

if TYPE_CHECKING:
    from cluster.client import Job, JobFigures, WorkerFigures

_NAME_COLUMNS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveWorker:
    """The facts of one worker. `shares` are the shares of its recent time in which it computed, waited, sent, or did
    something else; they sum to 1. Bubbles are from 0 to 1, sizes in bytes. None: not known, or no limit."""

    worker: int
    stages: tuple[int, ...]
    host: str = ""
    shares: tuple[float, float, float, float] | None = None
    bubble: float | None = None
    bubble_predicted: float | None = None
    peak_bytes: int | None = None
    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRun:
    """The present facts of a run. `phase` says in a word or two what it does; `step` counts the steps done. `loss` and
    `accuracy` are means over the present epoch so far. `one_process`: its workers are threads of one process, so that
    no worker has a memory figure of its own."""

    phase: str
    step: int = 0
    steps_total: int | None = None
    seconds_left: float | None = None
    losses: tuple[float, ...] = ()
    loss: float | None = None
    accuracy: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    validation_perplexity: float | None = None
    samples_per_second: float | None = None
    step_mean: float | None = None
    step_median: float | None = None
    bubble: float | None = None
    bubble_predicted: float | None = None
    workers: tuple[LiveWorker, ...] = ()
    one_process: bool = False


class Pace:
    """The pace of the steps, evaluations included, over about the last 3 × RECENT_S seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def take(self, steps: int, now: float) -> None:
        """Record that `steps` steps are done at `now`, in seconds on any clock."""
        if self._seen and steps < self._seen[-1][1]:  # a new attempt began
            self._seen.clear()
        if not self._seen or now - self._seen[-1][0] >= RECENT_S / 50:
            self._seen.append((now, steps))
        while now - self._seen[0][0] > 3 * RECENT_S and len(self._seen) > 2:
            self._seen.popleft()

    def seconds_left(self, steps: int, steps_total: int | None) -> float | None:
        """Return how long the rest takes after `steps` steps, at this pace; None if that is not known."""
        if steps_total is None or not self._seen:
            return None
        (begun, first), (now, last) = self._seen[0], self._seen[-1]
        if last <= first or now <= begun:
            return None
        return (steps_total - steps) * (now - begun) / (last - first)


class RecentRows:
    """The figures of a run's recent rows."""

    def __init__(self) -> None:
        self._recent = RecentSteps()
        self._pace = Pace()
        self._losses = Series()
        self.means = EpochMeans()
        self.last: StepRow | None = None
        self.evaluation: EvalRow | None = None

    def take(self, row: Row, now: float) -> None:
        """Add a row that arrived at `now`, in seconds on any clock."""
        if not isinstance(row, StepRow):
            self.evaluation = row
            return
        if self.last is not None and row.attempt != self.last.attempt:  # the run began again
            self._recent, self._losses, self.evaluation = RecentSteps(), Series(), None
            self.means = EpochMeans()
        self.last = row
        self._recent.add(row.samples, row.seconds, row.bubble, row.steps or 1)
        take_row(self.means, row)
        self._losses.add(row.step, row.loss_per_row)
        self._pace.take(row.step, now)

    def seconds_left(self, steps_total: int | None) -> float | None:
        """Return how long the rest takes at the recent pace; None if that is not known."""
        return None if self.last is None else self._pace.seconds_left(self.last.step, steps_total)

    @property
    def losses(self) -> tuple[float, ...]:
        """The losses of the whole run, at evenly spaced steps."""
        return tuple(value for _, value in self._losses.points)

    @property
    def samples_per_second(self) -> float | None:
        """The rows trained on per second, over the recent steps."""
        return self._recent.samples_per_second

    @property
    def durations(self) -> Durations:
        """How long the recent steps took."""
        return self._recent.durations

    @property
    def bubble(self) -> float | None:
        """The bubble of the recent steps, from 0 to 1."""
        return self._recent.bubble


class RecentTimes:
    """Every worker's times over about the last RECENT_S seconds, computed from totals that only grow."""

    def __init__(self) -> None:
        self._totals: deque[Sequence[Times]] = deque()

    def take(self, totals: Sequence[Times]) -> None:
        """Add the present totals of all workers. Smaller totals are those of a new attempt."""
        if self._totals and (len(totals) != len(self._totals[-1]) or _wall(totals) < _wall(self._totals[-1])):
            self._totals.clear()
        if not self._totals or _wall(totals) > _wall(self._totals[-1]):
            self._totals.append(totals)
        while len(self._totals) > 2 and _wall(totals) - _wall(self._totals[1]) >= 1e6 * RECENT_S:
            self._totals.popleft()

    def recent(self) -> list[Times]:
        """Return each worker's recent microseconds by kind."""
        if not self._totals:
            return []
        last = self._totals[-1]
        if len(self._totals) == 1:
            return list(last)
        first = self._totals[0]
        return [
            {kind: us - before.get(kind, 0) for kind, us in now.items()}
            for now, before in zip(last, first, strict=True)
        ]


def _wall(totals: Sequence[Times]) -> int:
    return max((sum(times.values()) for times in totals), default=0)


def shares_of(times: Times) -> tuple[float, float, float, float] | None:
    """Return the shares of computing, waiting, sending and anything else; None if no time has passed."""
    wall = sum(times.values())
    if wall <= 0:
        return None
    compute, wait = (sum(times.get(kind, 0) for kind in kinds) / wall for kinds in (COMPUTE, WAITS))
    send = times.get("send", 0) / wall
    return compute, wait, send, max(0.0, 1.0 - compute - wait - send)


def workers_of(figures: Sequence[WorkerFigures], recent: RecentTimes) -> tuple[LiveWorker, ...]:
    """Return the facts of the workers of a job of the service. `recent` takes their totals and computes recent
    times."""
    recent.take([worker.microseconds for worker in figures])
    return tuple(
        LiveWorker(
            worker=worker.worker,
            stages=worker.stages,
            host=worker.host,
            shares=shares_of(times),
            bubble=bubble_of(times),
            bubble_predicted=worker.bubble_predicted,
            peak_bytes=worker.peak_job_bytes,
            limit_bytes=worker.limit_bytes,
        )
        for worker, times in zip(figures, recent.recent(), strict=True)
    )


def local_workers(
    totals: Sequence[Times],
    placement: Sequence[int],
    recent: RecentTimes,
    *,
    predicted: Sequence[float] | None,
    peaks: Mapping[int, int],
    limit_bytes: int | None,
) -> tuple[LiveWorker, ...]:
    """Return the facts of the workers that this process started. `peaks` has the peak bytes that each took for the
    job."""
    recent.take(totals)
    return tuple(
        LiveWorker(
            worker=worker,
            stages=tuple(stage for stage, holder in enumerate(placement) if holder == worker),
            shares=shares_of(times),
            bubble=bubble_of(times),
            bubble_predicted=None if predicted is None else predicted[worker],
            peak_bytes=peaks.get(worker),
            limit_bytes=limit_bytes,
        )
        for worker, times in enumerate(recent.recent())
    )


class JobPulse:
    """The recent pace and times of one job of the service, kept from one frame to the next."""

    def __init__(self) -> None:
        self._pace, self._times = Pace(), RecentTimes()

    def why_slow(self, figures: JobFigures) -> str | None:
        """Return why the job is slow at present; None if there is no clear cause. Call `facts` with the figures
        first."""
        from cluster.cli.slow import why_slow_there

        return why_slow_there(figures.workers, self._times.recent())

    def facts(self, job: Job, figures: JobFigures, now: float) -> LiveRun:
        """Return the job's present facts; `now` is in seconds on any clock."""
        self._pace.take(figures.step, now)
        workers = workers_of(figures.workers, self._times)
        name = job.name if len(job.name) <= _NAME_COLUMNS else job.name[: _NAME_COLUMNS - 1] + "…"
        return LiveRun(
            phase=f"{job.id} {name}",
            step=figures.step,
            steps_total=job.steps_total,
            seconds_left=self._pace.seconds_left(figures.step, job.steps_total),
            losses=figures.losses,
            loss=figures.loss,
            accuracy=figures.accuracy,
            validation_loss=figures.validation_loss,
            validation_accuracy=figures.validation_accuracy,
            validation_perplexity=figures.latest.get("validation_perplexity"),
            samples_per_second=figures.samples_per_second,
            step_mean=figures.latest.get(STEP_MEAN),
            step_median=figures.latest.get(STEP_MEDIAN),
            bubble=figures.bubble,
            bubble_predicted=figures.bubble_predicted,
            workers=workers,
        )
