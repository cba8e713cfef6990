"""A job of the service, as it stood when it was last asked for."""

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
from coordinator.train.rows import EvalRow, Row, StepRow
from stages.errors import JobFailed, PipetrainError, StageFailed

if TYPE_CHECKING:
    from pandas import DataFrame

Runner = Literal["runner"]


class Job(JobSnapshot):
    """A job: what it is at present, and what can be done with it.

    job = client.submit("digits.yaml")
    for row in job.steps(): print(row.step, row.loss)    # until it has ended
    job.raise_for_state().fetch("trained")

    The properties are a snapshot. `refresh`, `wait`, `watch`, `stop` and iterating renew it; nothing else does.
    """

    def __init__(self, connection: Connection, message: pb.Job) -> None:
        super().__init__(message)
        self._connection = connection

    def refresh(self) -> Self:
        """Ask for its present state; the job itself. Raises UnknownJob after it was deleted."""
        self._message = self._connection.call("Get", pb.GetRequest(id=self.id))
        return self

    def wait(self, timeout: float | None = None, *, check: bool = False, patience: float = PATIENCE_S) -> Self:
        """Wait until it has ended, whatever its end; the job itself. `check=True`: `raise_for_state` then.

        Raises TimeoutError after `timeout` seconds; the job goes on. A service that is started again meanwhile is
        waited for, `patience` seconds at most.
        """
        if not self.done:
            for _ in self.watch(rows=False, timeout=timeout, patience=patience):
                pass
        return self.raise_for_state() if check else self

    def raise_for_state(self) -> Self:
        """The job itself where it has SUCCEEDED, or has not ended. Raises JobFailed with the first cause otherwise.

        A job that was stopped did not finish, and is told in the same way. `exit_code` of the error is the job's.
        """
        if not self.done or self.state == "SUCCEEDED":
            return self
        text = self.reason if self.state == "FAILED" else f"job {self.id} was stopped: {self.reason}"
        error = StageFailed(text, self.traceback) if self.traceback else JobFailed(text)
        error.exit_code = self.exit_code or error.exit_code
        raise error

    def stop(self, *, now: bool = False) -> Self:
        """Ask for its end and come back at once; the job itself. `wait` tells when it has ended.

        It finishes the steps under way and saves its weights, or with `now` ends without either. A job that has ended
        stays as it is.
        """
        self._take(self._connection.call("Stop", pb.StopRequest(id=self.id, now=now)))
        return self

    def delete(self) -> None:
        """Forget it, and remove its run directory. Raises Refused while it has not ended."""
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
        """State, events and rows as they come, from its submission on (or `from_now`), until it has ended.

        When the connection breaks it is made again, for `patience` seconds; no row comes twice and none is lost.
        `on_break` is told at the beginning of each such time. Raises NoService after it, TimeoutError after `timeout`.
        """
        request = pb.WatchRequest(id=self.id, without_rows=not rows, from_now=from_now)
        messages = watch_messages(self._connection, request, patience_s=patience, timeout_s=timeout, on_break=on_break)
        for message in messages:
            if message.HasField("job"):
                self._take(message.job)
            yield JobUpdate.from_wire(self, message)
        with contextlib.suppress(PipetrainError):  # it has ended; that the service or the job is gone now is no matter
            self.refresh()  # only this has the traceback

    def __iter__(self) -> Iterator[StepRow | EvalRow]:
        """The rows of its metrics from the first on, as they come, until it has ended: a StepRow for each step, an
        EvalRow for each evaluation, in order. `steps` and `evaluations` give those of one kind.

        A job that was started again makes its steps again: their `attempt` is then larger.
        """
        for update in self.watch():
            yield from update.rows

    def steps(self) -> Iterator[StepRow]:
        """Its training steps from the first on, as they come, until it has ended. As iterating, without evaluations."""
        return (row for row in self if isinstance(row, StepRow))

    def evaluations(self) -> Iterator[EvalRow]:
        """Its evaluations from the first on, as they come, until it has ended. As iterating, without steps."""
        return (row for row in self if isinstance(row, EvalRow))

    def to_frame(self, kind: FrameKind = "steps") -> DataFrame:
        """A pandas DataFrame of the `"steps"`, or the `"evaluations"`, that there are at present, indexed by `step`.

        Its columns are the fields of StepRow or EvalRow. Of a job that was started again it has the present attempt
        alone, so that each step is there once. Does not wait: `job.wait().to_frame()` has all. Raises UserMistake where
        pandas is not installed.
        """
        require_frames(kind)
        attempt, rows = 0, list[Row]()
        for message in messages_so_far(self._connection, pb.WatchRequest(id=self.id)):
            attempt = message.job.attempt if message.HasField("job") else attempt
            rows += map(row_from_wire, message.rows)
        return frame_of([row for row in rows if row.attempt == attempt], kind)

    def stats(self) -> JobFigures | None:
        """How fast it is, and where its workers' time goes; None before it ran, and long after it ended."""
        answer = self._connection.call("Stats", pb.StatsRequest(ids=[self.id]))
        return figures_from_wire(answer.jobs[0]) if answer.jobs else None

    def rows(self) -> Iterator[StepRow | EvalRow]:
        """The rows of its metrics that there are at present, of both kinds, in order."""
        for message in messages_so_far(self._connection, pb.WatchRequest(id=self.id)):
            yield from map(row_from_wire, message.rows)

    def events(self) -> list[JobEvent]:
        """What happened to it so far, in order."""
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
        """What its processes wrote, as (worker, line) without the line's end. The job runner is worker -1.

        `follow` goes on until it has ended. `worker` names one process; `tail` begins with the last so many lines of
        each. A break is borne as in `watch`, but not with `tail`.
        """
        request = pb.LogsRequest(id=self.id, follow=follow, tail=tail)
        if worker is not None:
            request.worker = RUNNER if worker == "runner" else worker
        yield from log_lines(self._connection, request, patience_s=patience, on_break=on_break)

    def fetch(self, folder: str | Path, what: Literal["run", "model"] = "run") -> list[Path]:
        """Bring its files into `folder`, checked, and give their paths; `what="model"` brings only the trained model.

        Files of the same names are replaced, each whole, and only after all has come. Raises Refused where there is
        no model, or what came is not what was sent.
        """
        kind = pb.FetchRequest.MODEL if what == "model" else pb.FetchRequest.RUN_DIRECTORY
        connection = self._connection
        return self._receive(
            connection.calls.Fetch(pb.FetchRequest(id=self.id, what=kind), metadata=connection.metadata), folder
        )

    def trace(self, folder: str | Path, steps: int = 0) -> Path:
        """Bring a trace (Chrome's format, for Perfetto) as trace.json into `folder`; its path.

        With `steps` it records so many steps from now on, and this waits for them; without, it is the last one that
        the job saved. Raises Refused where there is none, or the job ended without one.
        """
        connection = self._connection
        request = pb.TraceRequest(id=self.id, steps=steps)
        return self._receive(connection.calls.Trace(request, metadata=connection.metadata), folder)[0]

    def request_trace(self, steps: int) -> None:
        """Let it record its next `steps` steps, a job that waits its first, and come back at once."""
        connection = self._connection
        request = pb.TraceRequest(id=self.id, steps=steps, only_ask=True)
        with connection.failures():
            list(connection.calls.Trace(request, metadata=connection.metadata, timeout=LONG_CALL_S))

    def _receive(self, call: Any, folder: str | Path) -> list[Path]:
        try:
            with self._connection.failures():
                return receive_files(call, Path(folder))
        finally:
            call.cancel()

    def _take(self, message: pb.Job) -> None:
        """Renew the snapshot; keep what only Get and Submit tell."""
        kept = pb.Job(document=self._message.document, traceback=self._message.traceback, files=self._message.files)
        kept.MergeFrom(message)
        self._message = kept


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """What came of a job since the update before. `job` is the job itself, as it now stands.

    `has_state`: the service sent the state, which it also does every few seconds when nothing happens.
    """

    job: Job
    events: tuple[JobEvent, ...]
    rows: tuple[Row, ...]
    has_state: bool

    @staticmethod
    def from_wire(job: Job, message: pb.WatchUpdate) -> JobUpdate:
        """The update of a message about `job`."""
        events = tuple(map(JobEvent.from_wire, message.events))
        return JobUpdate(job, events, tuple(map(row_from_wire, message.rows)), message.HasField("job"))
