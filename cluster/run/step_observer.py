"""Writes a run's files about its steps other than the rows: accounts, the timeline of a sampled step, and traces."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO

from cluster.data.sources import JobData
from cluster.run.run_dir import RunDir, TraceRequest
from cluster.run.step_timeline import step_timeline
from coordinator.plan.blueprint import Blueprint
from coordinator.plan.estimate import estimate
from coordinator.plan.planned_schedule import planned_schedule
from coordinator.timing.accounts import AccountsLine
from coordinator.timing.prediction import Prediction
from coordinator.trace.chrome_trace import GrowingTrace, TimedAction, lay_over
from coordinator.trace.trace_memory import trace_memory
from coordinator.train.rows import TrainedStep
from coordinator.train.trainer import Trainer
from coordinator.train.workers import ClockFix, Workers

_LOOK_EVERY_S = 0.25
_ACCOUNT_EVERY_S = 0.01
"""Steps in shorter intervals share a line of accounts.jsonl; its totals count all of them."""
MOST_ACTIONS = 500_000
"""The most actions of a trace. Until the trace is complete, memory holds it too, with about 200 bytes an action."""


class StepObserver:
    """Writes the files about the steps of one attempt. The trainer's thread calls it between two rows."""

    def __init__(
        self,
        name: str,
        run_dir: RunDir,
        blueprint: Blueprint,
        data: JobData,
        workers: Workers,
        trainer: Trainer,
        at_look: Callable[[int], None] = lambda step: None,
    ) -> None:
        """`at_look` is called with the last step a few times a second, between two rows."""
        self._at_look = at_look
        self._name, self._run_dir, self._workers, self._trainer = name, run_dir, workers, trainer
        self._data = data
        self._know(blueprint)
        self._next_look = self._next_account = 0.0
        self._unwritten: AccountsLine | None = None
        self._last_step = 0
        self._wanted: TraceRequest | None = None
        self._growing: tuple[BinaryIO, GrowingTrace] | None = None
        self._traced: list[TimedAction] = []
        self._traced_steps = 0
        self._writing: threading.Thread | None = None

    def _know(self, blueprint: Blueprint) -> None:
        """Take in what follows from the layout."""
        data, program = self._data, blueprint.program
        self._blueprint = blueprint
        self._places = {place.worker: {"host": place.host, "pid": place.pid} for place in self._workers.places()}
        plan = estimate(blueprint, data_bytes=data.nbytes + data.reading_bytes, validation_rows=len(data.validation))
        self._activations = [stage.memory.saved for stage in plan.stages]
        self._most_steps = max(1, MOST_ACTIONS // (3 * program.n_stages * program.n_micro_batches))
        self._trace_memory = trace_memory(blueprint, len(data.train))
        self._run_dir.plan(planned_schedule(blueprint))

    def begin(self, trace_steps: int) -> None:
        """Begin before the first step. Trace `trace_steps` steps, or as many as a waiting request wants."""
        asked = self._run_dir.trace_request() or (TraceRequest(trace_steps) if trace_steps else None)
        if asked is not None:
            self._trace(asked)

    def go_on(self, trainer: Trainer, blueprint: Blueprint) -> None:
        """Go on with another trainer, after a worker was replaced, or in another layout; the accounts of that begin at
        0. A trace that has steps ends here."""
        if blueprint is not self._blueprint:
            self._write_account()
        self._trainer = trainer
        self._know(blueprint)
        if self._wanted is not None:
            if self._growing is not None:
                self._end_trace()
            else:
                trainer.trace(self._wanted.steps)

    def _trace(self, asked: TraceRequest) -> None:
        steps = min(asked.steps, self._most_steps, self._trainer.steps_total - self._trainer.steps_done)
        self._wanted = asked._replace(steps=steps)
        self._trainer.trace(steps)

    def step(self, row: TrainedStep) -> None:
        """Handle a finished step."""
        now = time.monotonic()
        self._account(row, now)
        if any(report.timeline for report in row.reports):
            self._take_timeline(row)
        if now >= self._next_look:
            self._next_look = now + _LOOK_EVERY_S
            self._run_dir.require_there()
            self._at_look(row.step)
            if self._wanted is None and (self._writing is None or not self._writing.is_alive()):
                asked = self._run_dir.trace_request()
                if asked is not None:
                    self._trace(asked)

    def _account(self, row: TrainedStep, now: float) -> None:
        if row.step <= self._last_step:  # made again after a recovery: the totals of the next line have it
            return
        self._last_step = row.step
        line = self._unwritten = row.accounts_then
        if line is not None and (now >= self._next_account or row.ends_submission):
            self._next_account = now + _ACCOUNT_EVERY_S
            self._write_account()

    def _write_account(self) -> None:
        if self._unwritten is not None:
            self._run_dir.account(self._unwritten.as_dict())
            self._unwritten = None

    def settled(self) -> None:
        """Take the trainer's closing accounts after the last step."""
        self._unwritten = self._trainer.closing_accounts

    def close(self) -> None:
        """Write the last accounts and an incomplete trace at the end of the run."""
        self._write_account()
        if self._wanted is not None:
            self._end_trace()
        self._await_trace()

    def _take_timeline(self, row: TrainedStep) -> None:
        clocks = self._workers.clocks()
        self._run_dir.timeline(
            step_timeline(
                row,
                clocks=clocks,
                places=self._places,
                prediction=None if row.bubble_predicted is None else self._trainer.prediction,
                activations_predicted=self._activations,
                memory_limit=self._workers.memory_limit,
            )
        )
        if self._wanted is not None and row.step in self._trainer.traced:
            step = [
                TimedAction(worker, action, start + clock.offset, end + clock.offset, row.step)
                for worker, (report, clock) in enumerate(zip(row.reports, clocks, strict=True))
                for action, start, end in report.timeline
            ]
            self._trace_step(step, dict(enumerate(clocks)))

    def _trace_step(self, step: Sequence[TimedAction], clocks: Mapping[int, ClockFix]) -> None:
        """Append a step to the trace's file at once, so that a crash of this process does not lose it."""
        assert self._wanted is not None, "a trace was requested"
        try:
            if self._growing is None:
                self._await_trace()
                hosts = {worker: str(place["host"]) for worker, place in self._places.items()}
                file = self._run_dir.begin_trace()
                trace = GrowingTrace(file, name=self._name, hosts=hosts, memory=self._trace_memory)
                self._growing = file, trace
                trace.add(step, clocks)
                self._run_dir.show_trace()
            else:
                self._growing[1].add(step, clocks)
        except OSError as error:
            self._trace_failed(error)
            return
        self._traced += step
        self._traced_steps += 1
        if self._traced_steps >= self._wanted.steps:
            self._end_trace()

    def _trace_failed(self, error: Exception) -> None:
        """Give up the trace after an error such as a full disk, and report that in an event. The job goes on."""
        assert self._wanted is not None, "a trace was requested"
        self._record_not_saved(self._wanted.id, error)
        self._trainer.trace(0)
        if self._growing is not None:
            with contextlib.suppress(OSError):
                self._growing[0].close()
        self._wanted, self._growing, self._traced, self._traced_steps = None, None, [], 0

    def _record_not_saved(self, request: str, error: Exception) -> None:
        cause = f"{type(error).__name__}: {error}".rstrip(": ")
        self._run_dir.event("trace not saved", id=request, cause=cause)

    def _end_trace(self) -> None:
        """Add the predicted actions and complete the trace. A thread does this, because a large trace takes seconds."""
        assert self._wanted is not None, "a trace was requested"
        request, self._wanted = self._wanted, None
        if self._growing is None:
            self._run_dir.event("trace not saved", id=request.id, cause="no step was made")
            return
        arguments = *self._growing, self._traced, self._trainer.prediction, request.id
        self._growing, self._traced, self._traced_steps = None, [], 0
        self._writing = threading.Thread(target=self._complete, args=arguments, name="trace-writer")
        self._writing.start()

    def _complete(
        self,
        file: BinaryIO,
        trace: GrowingTrace,
        measured: Sequence[TimedAction],
        prediction: Prediction | None,
        request: str,
    ) -> None:
        spans = () if prediction is None else prediction.spans
        dry = [TimedAction(worker, *span) for worker, lane in enumerate(spans) for span in lane]
        steps = {item.step for item in measured}
        try:
            with file:
                trace.close(lay_over(dry, measured))
        except Exception as error:
            self._record_not_saved(request, error)
        else:
            self._run_dir.event("trace saved", id=request, first=min(steps), steps=len(steps))

    def _await_trace(self) -> None:
        if self._writing is not None:
            self._writing.join()
            self._writing = None


@contextlib.contextmanager
def closing_after(observer: StepObserver) -> Iterator[None]:
    """Close the observer after the block. If the block raises an error, ignore errors of closing."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):
            observer.close()
        raise
    observer.close()
