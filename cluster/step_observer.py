"""What a run leaves behind of its steps besides their rows: accounts, the timeline of a sampled step, and traces."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from cluster.run_dir import RunDir
from cluster.sources import JobData
from cluster.step_timeline import step_timeline
from coordinator.blueprint import Blueprint
from coordinator.chrome_trace import TimedAction, Track, lay_over, write_chrome_trace
from coordinator.estimate import estimate
from coordinator.prediction import Prediction
from coordinator.rows import StepRow
from coordinator.trace_memory import trace_memory
from coordinator.trainer import Trainer
from coordinator.workers import Workers

_LOOK_EVERY_S = 0.25


class StepObserver:
    """Writes down each step of one attempt. Everything here happens between two rows, in the trainer's thread."""

    def __init__(
        self, name: str, run_dir: RunDir, blueprint: Blueprint, data: JobData, workers: Workers, trainer: Trainer
    ) -> None:
        self._name, self._run_dir, self._workers, self._trainer = name, run_dir, workers, trainer
        addresses = getattr(workers, "addresses", [])
        self._places: dict[int, Mapping[str, Any]] = {a.worker: {"host": a.host, "pid": a.pid} for a in addresses}
        self._memory_limit: int | None = getattr(workers, "memory_limit", None)
        plan = estimate(blueprint, data_bytes=data.nbytes, validation_rows=len(data.validation))
        self._activations = [stage.memory.saved for stage in plan.stages]
        self._next_look = 0.0
        self._wanted = 0
        self._traced: list[TimedAction] = []
        self._trace_memory = trace_memory(blueprint, len(data.train))
        self._writing: threading.Thread | None = None

    def want_trace(self, steps: int) -> None:
        """Save a trace as soon as so many traced steps are there; the trainer was told."""
        self._wanted = steps

    def step(self, row: StepRow) -> None:
        """Take in a step."""
        if row.accounts is not None:
            self._run_dir.account(row.accounts)
        if any(report.timeline for report in row.reports):
            self._take_timeline(row)
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_EVERY_S
            steps = self._run_dir.trace_request()
            if steps is not None:
                self._save_trace()
                self._trainer.trace(steps)
                self.want_trace(steps)

    def close(self) -> None:
        """The run has ended: a trace that is not complete is saved as it is."""
        self._save_trace()
        self._await_trace()

    def _take_timeline(self, row: StepRow) -> None:
        clocks = self._workers.clocks()
        self._run_dir.timeline(
            step_timeline(
                row,
                clocks=clocks,
                places=self._places,
                prediction=self._trainer.prediction,
                activations_predicted=self._activations,
                memory_limit=self._memory_limit,
            )
        )
        if row.step in self._trainer.traced:
            for worker, (report, clock) in enumerate(zip(row.reports, clocks, strict=True)):
                shift = clock.offset
                self._traced += [
                    TimedAction(worker, action, start + shift, end + shift, row.step)
                    for action, start, end in report.timeline
                ]
            self._wanted -= 1
            if self._wanted == 0:
                self._save_trace()

    def _save_trace(self) -> None:
        self._wanted = 0
        if not self._traced:
            return
        clocks = dict(enumerate(self._workers.clocks()))
        hosts = {worker: str(place["host"]) for worker, place in self._places.items()}
        measured = Track(timeline=self._traced, label="measured", hosts=hosts, clocks=clocks)
        self._traced = []
        self._await_trace()
        arguments = measured, self._trainer.prediction
        self._writing = threading.Thread(target=self._write_trace, args=arguments, name="trace-writer")
        self._writing.start()  # a large one takes seconds, which the job need not wait for

    def _write_trace(self, measured: Track, prediction: Prediction | None) -> None:
        spans = () if prediction is None else prediction.spans
        dry = [TimedAction(worker, *span) for worker, lane in enumerate(spans) for span in lane]
        predicted = Track(timeline=lay_over(dry, measured.timeline), label="predicted", hosts=measured.hosts)
        tracks = [track for track in (measured, predicted) if track.timeline]
        steps = {item.step for item in measured.timeline}
        try:
            self._run_dir.save_trace(
                lambda file: write_chrome_trace(file, *tracks, name=self._name, memory=self._trace_memory)
            )
        except OSError as error:
            self._run_dir.event("trace not saved", cause=f"trace.json: {error.strerror}")
        else:
            self._run_dir.event("trace saved", first=min(steps), steps=len(steps))

    def _await_trace(self) -> None:
        if self._writing is not None:
            self._writing.join()
            self._writing = None
