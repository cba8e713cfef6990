"""The class Job: a job of the service, and what a client can do with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from cluster.client.connection import LONG_CALL_S, Connection
from cluster.client.fetch import receive_files
from cluster.client.figures import JobFigures, figures_from_wire
from cluster.client.frames import FrameKind, frame_of, require_frames
from cluster.client.messages import JobEvent
from cluster.client.snapshot import JobSnapshot
from cluster.client.streams import PATIENCE_S, RUNNER, OnBreak, log_lines, messages_so_far, watch_messages
from cluster.wire import pipetrain_pb2 as pb
from cluster.wire.convert import row_from_wire
from coordinator.chaos.slowing import SLOW_SECONDS, SLOW_STEPS
from coordinator.train.rows import EvalRow, Row, StepRow
from stages.errors import JobFailed, PipetrainError, StageFailed

if TYPE_CHECKING:
    from pandas import DataFrame

Runner = Literal["runner"]
_FAULT_S = 90.0  # the service waits for the job for a minute


class Job(JobSnapshot):
    """A job of the service.

    job = client.submit("digits.yaml")
    for row in job.steps(): print(row.step, row.loss)    # until the job has ended
    job.raise_for_state().fetch("trained")

    The properties are a snapshot. Only `refresh`, `wait`, `watch`, `stop` and iterating renew it.
    """

    def __init__(self, connection: Connection, message: pb.Job) -> None:
        super().__init__(message)
        self._connection = connection

    def refresh(self) -> Self:
        """Get the job's present state from the service, and return the job. Raises UnknownJob if it was deleted."""
        self._message = self._connection.call("Get", pb.GetRequest(id=self.id))
        return self

    def wait(self, timeout: float | None = None, *, check: bool = False, patience: float = PATIENCE_S) -> Self:
        """Wait until the job has ended, in any state, and return the job. With `check=True`, call `raise_for_state`
        then.

        Raises TimeoutError after `timeout` seconds; the job continues. If the service is started again meanwhile, this
        waits up to `patience` seconds for it.
        """
        if not self.done:
            for _ in self.watch(rows=False, timeout=timeout, patience=patience):
                pass
        return self.raise_for_state() if check else self

    def raise_for_state(self) -> Self:
        """Return the job if it has SUCCEEDED or has not ended. Raises JobFailed with the first cause if it FAILED.

        A job that was STOPPED did not finish, and raises JobFailed too. `exit_code` of the error is the job's.
        """
        if not self.done or self.state == "SUCCEEDED":
            return self
        text = self.reason if self.state == "FAILED" else f"job {self.id} was stopped: {self.reason}"
        raised = self.traceback.startswith("Traceback")  # else it is a drawing
        error = StageFailed(text, self.traceback) if raised else JobFailed(text)
        error.traceback = self.traceback
        error.exit_code = self.exit_code or error.exit_code
        raise error

    def stop(self, *, now: bool = False, grace: float | None = None) -> Self:
        """Request that the job stops, and return the job at once. `wait` waits until it has ended.

        The job finishes the steps in progress and saves its state and its weights within `grace` seconds (by default
        its `checkpoint.grace`); with `now` it does neither. A job that has ended stays as it is.
        """
        self._take(self._connection.call("Stop", pb.StopRequest(id=self.id, now=now, grace=grace)))
        return self

    def delete(self) -> None:
        """Delete the job and its run directory. Raises Refused if the job has not ended."""
        self._connection.call("Delete", pb.DeleteRequest(id=self.id), deadline_s=LONG_CALL_S, again=False)

    def watch(
        self,
        *,
        rows: bool = True,
        from_now: bool = False,
        timeout: float | None = None,
        patience: float = PATIENCE_S,
        on_break: OnBreak | None = None,
    ) -> Iterator[JobUpdate]:
        """Yield the job's states, events and rows as they happen, from its submission on (with `from_now`, from now
        on), until it has ended.

        If the connection breaks, it is made again, for up to `patience` seconds; no row is doubled or lost. `on_break`
        is called with the error when that begins. Raises NoService if the service does not come back in that time,
        TimeoutError after `timeout` seconds.
        """
        request = pb.WatchRequest(id=self.id, without_rows=not rows, from_now=from_now)
        messages = watch_messages(self._connection, request, patience_s=patience, timeout_s=timeout, on_break=on_break)
        for message in messages:
            if message.HasField("job"):
                self._take(message.job)
            yield JobUpdate.from_wire(self, message)
        with contextlib.suppress(PipetrainError):  # the job has ended: it does not matter if the service is gone
            self.refresh()  # only this answer contains the traceback

    def __iter__(self) -> Iterator[StepRow | EvalRow]:
        """Yield the rows of the job's metrics live, from the first one, until it has ended: a StepRow for each step and
        an EvalRow for each evaluation, in order. `steps` and `evaluations` yield rows of one kind.

        A job that is started again makes its steps again; the new rows have a larger `attempt`.
        """
        for update in self.watch():
            yield from update.rows

    def steps(self) -> Iterator[StepRow]:
        """Yield the job's training steps live, from the first one, until it has ended."""
        return (row for row in self if isinstance(row, StepRow))

    def evaluations(self) -> Iterator[EvalRow]:
        """Yield the job's evaluations live, from the first one, until it has ended."""
        return (row for row in self if isinstance(row, EvalRow))

    def to_frame(self, kind: FrameKind = "steps") -> DataFrame:
        """Return the present `"steps"` or `"evaluations"` as a pandas DataFrame, indexed by `step`.

        Its columns are the fields of StepRow or EvalRow. If the job was started again, it has the rows of the last
        attempt only, so that it has each step once. The call does not wait for the job: use `job.wait().to_frame()` for
        all rows. Raises UserMistake if pandas is not installed.
        """
        require_frames(kind)
        attempt, rows = 0, list[Row]()
        for message in messages_so_far(self._connection, pb.WatchRequest(id=self.id)):
            attempt = message.job.attempt if message.HasField("job") else attempt
            rows += map(row_from_wire, message.rows)
        return frame_of([row for row in rows if row.attempt == attempt], kind)

    def stats(self) -> JobFigures | None:
        """Return the job's speed and how its workers spend their time; None before it runs, and from a few minutes
        after its end."""
        answer = self._connection.call("Stats", pb.StatsRequest(ids=[self.id]))
        return figures_from_wire(answer.jobs[0]) if answer.jobs else None

    def rows(self) -> Iterator[StepRow | EvalRow]:
        """Yield the present rows of the job's metrics, of both kinds, in order."""
        for message in messages_so_far(self._connection, pb.WatchRequest(id=self.id)):
            yield from map(row_from_wire, message.rows)

    def events(self) -> list[JobEvent]:
        """Return the job's events so far, in order."""
        messages = messages_so_far(self._connection, pb.WatchRequest(id=self.id, without_rows=True))
        return [JobEvent.from_wire(event) for message in messages for event in message.events]

    def logs(
        self,
        *,
        follow: bool = False,
        worker: int | Runner | None = None,
        tail: int = 0,
        patience: float = PATIENCE_S,
        on_break: OnBreak | None = None,
    ) -> Iterator[tuple[int, str]]:
        """Yield the output of the job's processes as (worker, line), without line ends. The runner is worker -1.

        With `follow`, continue until the job has ended. `worker` chooses one process; with `tail`, begin with the last
        `tail` lines of each process. If the connection breaks, it is made again as in `watch`; with `tail` it is not.
        """
        request = pb.LogsRequest(id=self.id, follow=follow, tail=tail)
        if worker is not None:
            request.worker = RUNNER if worker == "runner" else worker
        yield from log_lines(self._connection, request, patience_s=patience, on_break=on_break)

    def fetch(self, folder: str | Path, what: Literal["run", "model"] = "run") -> list[Path]:
        """Download the job's files into `folder` and return their paths; `what="model"` downloads only the trained
        model.

        Files of the same names are replaced after all files have arrived. Raises Refused if there is no model, or if a
        file does not match its checksum.
        """
        kind = pb.FetchRequest.MODEL if what == "model" else pb.FetchRequest.RUN_DIRECTORY
        connection = self._connection
        return self._receive(
            connection.calls.Fetch(pb.FetchRequest(id=self.id, what=kind), metadata=connection.metadata), folder
        )

    def trace(self, folder: str | Path, steps: int = 0) -> Path:
        """Download a trace (Chrome's format, for Perfetto) as trace.json into `folder`, and return its path.

        With `steps`, the job records its next `steps` steps, and the call waits for them; without, download the last
        trace that the job saved. Raises Refused if there is none, or if the job ends without one.
        """
        connection = self._connection
        request = pb.TraceRequest(id=self.id, steps=steps)
        return self._receive(connection.calls.Trace(request, metadata=connection.metadata), folder)[0]

    def request_trace(self, steps: int) -> None:
        """Request that the job records its next `steps` steps, and return at once. A waiting job records its first
        steps."""
        connection = self._connection
        request = pb.TraceRequest(id=self.id, steps=steps, only_ask=True)
        with connection.failures():
            list(connection.calls.Trace(request, metadata=connection.metadata, timeout=LONG_CALL_S))

    def inject_fault(
        self,
        what: str,
        *,
        worker: int,
        at: str | None = None,
        step: int | None = None,
        seconds: float = SLOW_SECONDS,
        steps: int = SLOW_STEPS,
    ) -> str:
        """Let a worker of the job, which must be RUNNING, have a fault; return what is planned as a line of text.

        `what` is `kill`, `stop`, `slow`, `partition`, `oom`, `corrupt` or `disk-full`. It strikes before the action
        `at` (as schedules print it: `2B5`; or `update`, `evaluation`, `checkpoint`) of step `step`, or at the next such
        point. A `slow` worker computes for `seconds` before each action, in `steps` steps. Raises UserMistake, and
        Refused if the job cannot have the fault.
        """
        asked = pb.FaultRequest(id=self.id, kind=what, worker=worker, at=at, step=step, seconds=seconds, steps=steps)
        answer = self._connection.call("InjectFault", asked, deadline_s=_FAULT_S, again=False)
        return str(answer.text)

    def _receive(self, call: Any, folder: str | Path) -> list[Path]:
        try:
            with self._connection.failures():
                return receive_files(call, Path(folder))
        finally:
            call.cancel()

    def _take(self, message: pb.Job) -> None:
        """Renew the snapshot, but keep the fields that only the answers to Get and Submit contain."""
        kept = pb.Job(document=self._message.document, traceback=self._message.traceback, files=self._message.files)
        kept.MergeFrom(message)
        self._message = kept


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """The news of a job since the last update. `job` is the job itself, with its present state.

    `has_state`: the service sent the state. It also sends it every few seconds if nothing happens.
    """

    job: Job
    events: tuple[JobEvent, ...]
    rows: tuple[Row, ...]
    has_state: bool

    @staticmethod
    def from_wire(job: Job, message: pb.WatchUpdate) -> JobUpdate:
        """Return the update of a message about `job`."""
        events = tuple(map(JobEvent.from_wire, message.events))
        return JobUpdate(job, events, tuple(map(row_from_wire, message.rows)), message.HasField("job"))
