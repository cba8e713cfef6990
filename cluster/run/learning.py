"""Gives a run's warnings that its network may learn nothing: in its events, and to `warn`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cluster.data.measure import measure
from cluster.data.sources import JobData
from cluster.run.run_dir import RunDir
from coordinator.learning.data_warnings import data_warnings
from coordinator.learning.warning import LearningWarning
from coordinator.learning.watch import LearningWatch
from coordinator.train.rows import EvalRow, TrainedStep

WARNING = "warning"
"""The kind of the event."""


class LearningNotes:
    """Warns about the data when it is made, and about the training as rows come. Every warning is an event, and a line
    for `warn`."""

    def __init__(self, data: JobData, run_dir: RunDir, warn: Callable[[str], None]) -> None:
        self._run_dir, self._warn = run_dir, warn
        self.given: list[LearningWarning] = []
        facts = measure(data)
        self._watch = LearningWatch(facts.constant_loss)
        self._give(data_warnings(facts))

    def row(self, row: TrainedStep | EvalRow) -> None:
        """Take in a row of the trainer."""
        if isinstance(row, EvalRow):
            self._watch.evaluation(row)
        else:
            self._give(self._watch.step(row))

    def ended(self) -> None:
        """Take in that the training has ended without a failure."""
        self._give(self._watch.end())

    def _give(self, warnings: Iterable[LearningWarning]) -> None:
        for warning in warnings:
            self.given.append(warning)
            self._run_dir.event(WARNING, code=warning.code, detail=warning.text, figures=dict(warning.figures))
            self._warn(f"warning: {warning.text}")
