"""The runner: a detached Ray actor that performs one attempt of a job, owns its workers and outlives the service.

It writes its progress into the run directory, from which the service reads it: `events.jsonl` has its events, the last
of which says how it ended, and `metrics.jsonl` has its rows. So nothing is lost while no service is up, and nothing is
counted twice.
"""

from __future__ import annotations

import importlib
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.actors.host_processes import boot_moment, ignore_end_signals
from cluster.actors.process_limits import limit_memory
from cluster.actors.runner_link import CHUNK_BYTES, RunnerLink, log_line, log_to_file
from cluster.checkpoints.folder import CheckpointFolder
from cluster.data.rules import SourceRules
from cluster.run.resuming import Resume, find_checkpoint
from cluster.run.run_dir import RunDir
from cluster.run.run_errors import as_our_error, failure_details, record_failure, with_names
from cluster.run.training import Run, Where
from coordinator import run_files
from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.layout import may_change
from coordinator.texts import per_second, text_measures
from coordinator.timing.epoch_means import EpochMeans
from coordinator.train.rows import EvalRow, Row, take_row
from coordinator.train.workers import WorkerPlace
from stages.errors import InvalidData, InvalidJob, NotEnoughResources, PipetrainError, StoppedEarly

ACTOR_NAME = "PipetrainRunner"
"""The name of the actor's class, by which runner processes are recognised."""
CONTROL, FILES, LOGS = "control", "files", "logs"
GROUPS = {CONTROL: 4, FILES: 4, LOGS: 1}
"""Threads of the concurrency groups, which answer calls while the job runs. LOGS has one thread, so that the output of
workers stays in order."""
_LOG_EVERY_S = 5.0
_LEAVE_AFTER_S = 60.0


def runner_name(job: str, attempt: int) -> str:
    """Return the actor's name in Ray. Ray allows a name only once, so an attempt has at most one runner at a time."""
    return f"pipetrain-job-{job}-{attempt}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A runner's input.

    `document` is the job; `files` maps the path of each uploaded file in the job to its local copy; `memory_per_cpu` is
    a CPU's share of its node's memory in bytes; `force` starts the job even if the plan refuses it; `resumed_from` is
    the job whose checkpoints it begins with; `workers` is how many workers the queue has counted; `rules` are
    SourceRules.
    """

    job: str
    attempt: int
    folder: str
    document: Mapping[str, Any]
    files: Mapping[str, str]
    memory_per_cpu: int
    force: bool = False
    resumed_from: str = ""
    workers: int | None = None
    rules: Mapping[str, Any] = field(default_factory=dict)


class JobRunner:
    """Performs one attempt. `cluster.service.ray_agent` makes an actor of this class."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._folder = Path(assignment.folder)
        self._run: Run | None = None
        self._stop = threading.Event()
        self._grace: float | None = None  # the seconds that a stop gave it to save
        self._prepared: queue.SimpleQueue[Run | BaseException] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._ending: Mapping[str, Any] = {}
        self._log_lock = threading.Lock()

    def run(self) -> None:
        """Run the attempt, unless it was started before. The result is in the run directory."""
        try:
            if self._claim():
                log_to_file(self._folder / run_files.LOGS / run_files.log_file(None))
                self._run_attempt()
        except Exception as error:
            self._fail_unwritten(error)
        finally:
            self._ended.set()
            leave = threading.Timer(_LEAVE_AFTER_S, os._exit, (0,))  # in case no service is up to end this process
            leave.daemon = True
            leave.start()

    def stop(self, grace: float | None = None) -> None:
        """Stop after the steps under way, and save the weights, within `grace` seconds; None: within those of the
        job."""
        self._grace = self._grace if grace is None else grace
        self._stop.set()
        run = self._run
        if run is not None:
            run.stop(grace)
        else:
            self._prepared.put(StoppedEarly())

    def ping(self, seconds: float) -> Mapping[str, Any] | bool:
        """Answer after `seconds`, or as soon as the attempt has ended. False: it has not ended. A mapping: it has, with
        this last event. True: it has, but another process ran it."""
        return (self._ending or True) if self._ended.wait(seconds) else False

    def read_file(self, path: str, offset: int) -> bytes:
        """Return a part of an uploaded file for a worker on another host; b"" at its end. Raises PermissionError for
        files of other jobs."""
        if path not in self._assignment.files.values():
            raise PermissionError(f"{path} is not a file of job {self._assignment.job}")
        with Path(path).open("rb") as file:
            file.seek(offset)
            return file.read(CHUNK_BYTES)

    def take_log(self, worker: int, part: bytes) -> None:
        """Append output of a worker on another host to the worker's log file."""
        with self._log_lock, (self._folder / run_files.LOGS / run_files.log_file(worker)).open("ab") as file:
            file.write(part)

    def _claim(self) -> bool:
        """Return True for the first runner of the attempt only: after a crash, the service may start a second one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            os.close(
                os.open(self._folder / run_files.attempt_mark(self._assignment.attempt), os.O_CREAT | os.O_EXCL, 0o600)
            )
        except FileExistsError:
            return False
        return True

    def _run_attempt(self) -> None:
        spec, refusal = self._spec()
        run_dir = RunDir.reopen(self._folder, spec, self._assignment.attempt)
        try:
            if spec is None:
                assert refusal is not None, "it says why there is no spec"
                record_failure(run_dir, refusal)
                log_line(f"failed: {refusal}")
                return
            run_dir.event("preparing", pid=os.getpid(), host=os.uname().nodename, **boot_moment())
            log_line(f"attempt {self._assignment.attempt}: reading {spec.data.source}")
            self._train(spec, run_dir, _RunLog())
        except Exception as error:
            self._fail_unexpectedly(run_dir, error)
        finally:
            self._ending = run_dir.ending or {}
            run_dir.close()

    def _spec(self) -> tuple[JobSpec | None, InvalidJob | None]:
        """Return the job, or the error with which this version refuses a job that an older version accepted."""
        try:
            return parse_job(dict(self._assignment.document)), None
        except InvalidJob as error:
            return None, InvalidJob([f"this version of pipetrain refuses the job: {line}" for line in error.problems])

    def _train(self, spec: JobSpec, run_dir: RunDir, log: _RunLog) -> None:
        try:
            run = self._prepare(spec, run_dir)
        except StoppedEarly:
            newest = max(CheckpointFolder(run_dir.checkpoints).steps(), default=None)
            run_dir.event("stopped", step=newest or 0, saved=False, checkpoint=newest)
            log_line("stopped before its data was read")
            return
        except PipetrainError as error:
            ours = with_names(error, self._assignment.files)
            record_failure(run_dir, ours)
            log_line(f"failed: {ours}")
            return
        except Exception as error:
            self._fail_unexpectedly(run_dir, error)
            return
        self._run = run
        run.warn = log_line
        if self._stop.is_set():
            run.stop(self._grace)
        if run.resume is not None:
            position = run.resume.manifest.position
            again = run_dir.go_on(position)
            run_dir.event("resumed", step=position.step, steps_lost=again)
            log_line(f"goes on from the checkpoint of step {position.step}")
        try:
            for row in run.rows(run_dir, on_start=log.started):
                log.row(row, run)
        except PipetrainError as error:
            log_line(f"failed: {error}\n{getattr(error, 'traceback', '')}".rstrip())
        else:
            result = run.result
            log_line("ended" if result is None else f"ended at step {result.steps} of {result.steps_total}")

    def _prepare(self, spec: JobSpec, run_dir: RunDir) -> Run:
        ray = importlib.import_module("ray")
        ignore_end_signals()  # the service ends runners
        assignment, context = self._assignment, ray.get_runtime_context()
        here = spec.relocated(assignment.files)
        workers = here.pipeline.n_workers or assignment.workers or here.pipeline.n_stages
        cpus = here.resources.cpus_per_worker * workers
        limit_memory(assignment.memory_per_cpu * cpus)
        rules = SourceRules.from_dict(assignment.rules).with_files(assignment.files.values())
        link = RunnerLink(
            node=context.get_node_id(),
            runner=context.current_actor,
            logs=str(self._folder / run_files.LOGS),
            files=tuple(assignment.files.values()),
            memory_per_cpu=assignment.memory_per_cpu,
            rules=rules,
            attempt=assignment.attempt,
        )
        waiting: list[str] = []

        def waits(what: str) -> None:
            if waiting[-1:] != [what]:
                waiting.append(what)
                run_dir.event("waiting", detail=what)

        resume = self._checkpoint(run_dir)
        most = assignment.workers if may_change(here.pipeline) else None
        where = Where(inside=link, on_wait=waits, most=most, rules=rules)
        run = self._unless_stopped(lambda: Run.prepare(here, where, resume=resume))
        if not assignment.force and (refusals := run.refusals()):
            raise NotEnoughResources("\n".join([*refusals, "`--force` starts the job nevertheless"]))
        return run

    def _checkpoint(self, run_dir: RunDir) -> Resume | None:
        """Return the newest checkpoint of the attempts before, or of the job before; None if there is none. Raises
        InvalidData if a job that goes on with another one has none: it must not begin anew."""
        before = self._assignment.resumed_from
        if self._assignment.attempt == 1 and not before:
            return None
        try:
            return find_checkpoint(self._folder, lambda text: run_dir.event("checkpoint damaged", detail=text))
        except InvalidData:
            if before:
                raise InvalidData(f"no checkpoint of job {before} is whole; submit the job file anew") from None
            return None

    def _unless_stopped(self, prepare: Callable[[], Run]) -> Run:
        """Return the run that `prepare` makes in a thread. Raises StoppedEarly as soon as the job is stopped, even if
        reading the data hangs."""

        def work() -> None:
            try:
                self._prepared.put(prepare())
            except BaseException as error:
                self._prepared.put(error)

        if self._stop.is_set():
            raise StoppedEarly
        threading.Thread(target=work, name="prepare", daemon=True).start()
        found = self._prepared.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def _fail_unexpectedly(self, run_dir: RunDir, error: Exception) -> None:
        """Fail the job because of an error that is not pipetrain's own, with its cause."""
        ours = as_our_error(error, self._folder, there=run_dir.is_there())
        record_failure(run_dir, ours)
        log_line(f"failed: {ours}\n{getattr(ours, 'traceback', '')}".rstrip())

    def _fail_unwritten(self, error: Exception) -> None:
        """Fail the job without a run directory to write to: the service gets the failure from `ping`."""
        ours = as_our_error(error, self._folder)
        self._ending = self._ending or {"event": "failed", "attempt": self._assignment.attempt, **failure_details(ours)}
        log_line(f"failed: {ours}\n{getattr(ours, 'traceback', '')}".rstrip())


class _RunLog:
    """The runner's log: a line for each evaluation, and one every few seconds between them."""

    def __init__(self) -> None:
        self._next = 0.0
        self._means = EpochMeans()

    def started(self, places: Sequence[WorkerPlace]) -> None:
        """Log where the workers run."""
        for place in places:
            log_line(f"worker {place.worker} is process {place.pid} on {place.host}")
        self._next = time.monotonic() + _LOG_EVERY_S

    def row(self, row: Row, run: Run) -> None:
        """Log an evaluation, or a step if the last line is old enough."""
        now = time.monotonic()
        if isinstance(row, EvalRow):
            accuracy = "" if row.accuracy is None else f", accuracy {row.accuracy:.2%}"
            loss = "" if self._means.loss is None else f"mean loss {self._means.loss:.4g}, "
            parts = [f"validation loss {row.loss_per_row:.4g}", *text_measures(row.perplexity, row.bits_per_byte)]
            validation = ", ".join(parts)
            log_line(f"epoch {row.epoch}, step {row.step}/{run.steps_total}: {loss}{validation}{accuracy}")
        else:
            take_row(self._means, row)
            if now < self._next:
                return
            speed = f"{per_second(row.samples / row.seconds)} samples/s"
            mean = f"mean loss {self._means.loss:.4g}"
            log_line(f"epoch {row.epoch}, step {row.step}/{run.steps_total}: {mean}, {speed}")
        self._next = now + _LOG_EVERY_S
