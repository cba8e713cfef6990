"""What a run leaves behind of its steps besides their rows: accounts, the timeline of a sampled step, and traces."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from cluster.run_dir import RunDir
from cluster.sources import JobData
from cluster.step_timeline import step_timeline
from coordinator.blueprint import Blueprint
from coordinator.chrome_trace import TimedAction, chrome_trace
from coordinator.estimate import estimate
from coordinator.rows import StepRow
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
                self._traced += [TimedAction(worker, action, a + shift, b + shift) for action, a, b in report.timeline]
            self._wanted -= 1
            if self._wanted == 0:
                self._save_trace()

    def _save_trace(self) -> None:
        self._wanted = 0
        if not self._traced:
            return
        hosts = {worker: str(place["host"]) for worker, place in self._places.items()}
        self._run_dir.save_trace(chrome_trace(self._traced, name=self._name, hosts=hosts))
        self._run_dir.event("trace saved", actions=len(self._traced))
        self._traced = []
