"""Tells of workers that are stragglers: in the run's events, and to `warn`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

from cluster.run.run_dir import RunDir
from coordinator.timing.stragglers import Stragglers
from coordinator.train.rows import TrainedStep
from coordinator.train.story import STRAGGLES, STRAGGLES_NO_MORE, straggler_text
from coordinator.train.workers import Workers


class StragglerNotes:
    """Takes in the steps of a run whose full batch has `batch` rows. `planned` returns what the present plan gives each
    worker for it (see Stragglers)."""

    def __init__(
        self,
        workers: Workers,
        batch: int,
        run_dir: RunDir,
        warn: Callable[[str], None],
        planned: Callable[[], Sequence[float]] = tuple,
    ) -> None:
        self._workers, self._batch, self._run_dir, self._warn = workers, batch, run_dir, warn
        self._planned, self._places = planned, list(workers.places())
        self._stragglers = Stragglers(len(self._places), batch, planned() if self._places else ())

    def row(self, row: TrainedStep) -> None:
        """Take in a step. Threads (`--local`) are no stragglers: they share one process."""
        if not self._places:
            return
        for found in self._stragglers.take(row.step, row.samples, row.seconds, [one.account for one in row.reports]):
            details = {
                "event": STRAGGLES_NO_MORE if found.over else STRAGGLES,
                "host": self._places[found.worker].host,
                **asdict(found),
            }
            self._warn(straggler_text(details))
            self._run_dir.event(str(details.pop("event")), **details)

    def go_on(self) -> None:
        """Go on after a recovery: what was known of a worker that was replaced is forgotten."""
        places = list(self._workers.places())
        if len(places) != len(self._places):
            self._stragglers = Stragglers(len(places), self._batch, self._planned())
        else:
            for before, now in zip(self._places, places, strict=True):
                if (before.host, before.pid) != (now.host, now.pid):
                    self._stragglers.forget(now.worker)
        self._places = places
