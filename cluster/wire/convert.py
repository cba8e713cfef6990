"""Converts between the generated messages and pipetrain's own types.

row_to_wire(json.loads(line), attempt=1)     # a line of metrics.jsonl → MetricRow
row_from_wire(message.rows[0])               # MetricRow → StepRow | EvalRow
state_name(job.state), state_number("RUNNING")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from cluster.wire import pipetrain_pb2 as pb
from coordinator.queue.job_states import STATE_NAMES
from coordinator.train.rows import EvalRow, Row, StepRow

_NAMED = {kind: frozenset(kind.DESCRIPTOR.fields_by_name) - {"figures"} for kind in (pb.StepRow, pb.EvalRow)}


def row_to_wire(row: Mapping[str, Any], attempt: int) -> pb.MetricRow:
    """Return the message of a parsed line of metrics.jsonl. Raises KeyError, TypeError or ValueError for an invalid
    line."""
    values = {key: value for key, value in row.items() if key != "kind"}
    if row["kind"] == "step":
        return pb.MetricRow(attempt=attempt, step=_message(pb.StepRow, values))
    if row["kind"] == "eval":
        return pb.MetricRow(attempt=attempt, eval=_message(pb.EvalRow, values))
    raise ValueError(f"a row of metrics is of kind step or eval, not {row['kind']!r}")


def _message(kind: Any, values: dict[str, Any]) -> Any:
    """Return a message. Figures without a field of their own go into the map `figures`."""
    if newer := values.keys() - _NAMED[kind]:
        figures = {name: values.pop(name) for name in newer}
        return kind(**values, figures=figures)
    return kind(**values)


def row_from_wire(message: pb.MetricRow) -> Row:
    """Return the row of a message. Raises ValueError for a kind of row that this version does not know."""
    if message.HasField("step"):
        return StepRow(**_read_step(message.step), attempt=message.attempt)
    if message.HasField("eval"):
        return EvalRow(**_read_evaluation(message.eval), attempt=message.attempt)
    raise ValueError("a row of metrics that is neither a step nor an evaluation")


class _Reader:
    """Reads the fields of a row from its message: required ones, optional ones, and those in the map `figures`."""

    def __init__(self, row: type[Row], kind: Any) -> None:
        known = kind.DESCRIPTOR.fields_by_name
        names = [one.name for one in fields(row) if one.name != "attempt"]
        self._always = tuple(name for name in names if name in known and not known[name].has_presence)
        self._get = attrgetter(*self._always)
        self._optional = tuple(name for name in names if name in known and known[name].has_presence)
        self._newer = tuple(name for name in names if name not in known)

    def __call__(self, message: Any) -> dict[str, Any]:
        found = dict(zip(self._always, self._get(message), strict=True))
        for name in self._optional:
            found[name] = getattr(message, name) if message.HasField(name) else None
        for name in self._newer:
            found[name] = message.figures.get(name)
        return found


_read_step, _read_evaluation = _Reader(StepRow, pb.StepRow), _Reader(EvalRow, pb.EvalRow)


def state_name(number: int) -> str:
    """Return `RUNNING` for pb.RUNNING; for a state of a later version, a name with its number."""
    try:
        return str(pb.State.Name(number))
    except ValueError:
        return f"STATE_{number}"


def state_number(name: str) -> pb.State:
    """Return pb.RUNNING for `RUNNING` or `running`. Raises ValueError, which lists the known names."""
    if name.upper() not in STATE_NAMES:
        raise ValueError(f"got {name!r}, must be a state: {', '.join(STATE_NAMES)}")
    number: pb.State = getattr(pb, name.upper())
    return number


def moment(seconds: float) -> datetime:
    """Return seconds since 1970-01-01 as a time in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def iso(time: datetime | None) -> str | None:
    """Return a time as ISO 8601 in UTC with milliseconds, such as `2026-03-01T12:30:00.250Z`. None stays None."""
    if time is None:
        return None
    return time.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
