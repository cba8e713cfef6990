"""The rows that a run wrote before it went on: trackers get those that they do not have yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson

from cluster.trackers.tracker import Point, point_of
from coordinator.train.rows import EvalRow, StepRow

_STEP = frozenset(field.name for field in dataclasses.fields(StepRow) if field.init)
_EVAL = frozenset(field.name for field in dataclasses.fields(EvalRow) if field.init)


def earlier_points(metrics: Path, n_bytes: int, time: float) -> Iterator[Point]:
    """Yield the points of the first `n_bytes` of a file of rows; `time` is that of all points, because rows have none.
    Lines that are no rows are left out. Raises OSError."""
    with metrics.open("rb") as file:
        while file.tell() < n_bytes and (line := file.readline()):
            try:
                row = orjson.loads(line)
                evaluation = row["kind"] == "eval"
                known = _EVAL if evaluation else _STEP
                content = {name: value for name, value in row.items() if name in known}
                yield point_of(EvalRow(**content) if evaluation else StepRow(**content), time)
            except (ValueError, KeyError, TypeError):
                continue


def without(point: Point, recorded: Mapping[str, int]) -> Point | None:
    """Return the point without the values that are recorded already: `recorded` has the last step by name. None if
    nothing is left."""
    values = {name: value for name, value in point.values.items() if point.step > recorded.get(name, 0)}
    return point._replace(values=values) if values else None
