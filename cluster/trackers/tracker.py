"""What a tracker is: the port, and the values that pass it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from coordinator.train.rows import EVAL_FIGURES, STEP_FIGURES, Row, StepRow

Outcome = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """The run: `name` of the job, `run` (its id, or its run directory's name), `document` with every default, but
    without `tracking`; `folder` is its run directory."""

    name: str
    run: str
    attempt: int
    document: Mapping[str, Any]
    folder: Path


class Point(NamedTuple):
    """Values by name after `step` steps; `time` is in seconds UTC."""

    step: int
    time: float
    values: Mapping[str, float]


class Tracker(Protocol):
    """One sink. Called from one thread, in this order. Whatever it raises ends it, and nothing else."""

    def start(self, run: TrackedRun) -> None:
        """Begin the run there."""

    def write(self, points: Sequence[Point]) -> None:
        """Add points, and make them visible."""

    def close(self, outcome: Outcome) -> None:
        """End the run there."""


def point_of(row: Row, time: float) -> Point:
    """A row as trackers are told of it: names with the group that they belong to, at the row's own step."""
    figures = STEP_FIGURES if isinstance(row, StepRow) else EVAL_FIGURES
    found = ((figure.shown.tracker, figure.value(row)) for figure in figures if figure.shown.tracker)
    return Point(row.step, time, {name: value for name, value in found if value is not None})
