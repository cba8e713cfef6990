"""The interface of a tracker, and the values that it gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from coordinator.train.rows import EVAL_FIGURES, STEP_FIGURES, Row, StepRow

Outcome = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """A run for a tracker. `name` is the job's name, `run` the name of its run directory (for a service's job, its id),
    `document` the job with all defaults but without `tracking`, `folder` the run directory. `after` is the step after
    which the run goes on; 0 if it begins."""

    name: str
    run: str
    attempt: int
    document: Mapping[str, Any]
    folder: Path
    after: int = 0


class Point(NamedTuple):
    """Values by name after `step` steps; `time` is in seconds UTC."""

    step: int
    time: float
    values: Mapping[str, float]


class Tracker(Protocol):
    """A tracker. One thread calls its methods in this order. If one raises an error, only this tracker is dropped."""

    def start(self, run: TrackedRun) -> Mapping[str, int] | None:
        """Begin the run at the tracker, or go on with it. Return the last step that it has of each name; None: it has
        nothing."""

    def write(self, points: Sequence[Point]) -> None:
        """Record points, and make them visible."""

    def close(self, outcome: Outcome) -> None:
        """End the run at the tracker."""


def point_of(row: Row, time: float) -> Point:
    """Return a row as a point for trackers: the names have their group as a prefix."""
    figures = STEP_FIGURES if isinstance(row, StepRow) else EVAL_FIGURES
    found = ((figure.shown.tracker, figure.value(row)) for figure in figures if figure.shown.tracker)
    return Point(row.step, time, {name: value for name, value in found if value is not None})
