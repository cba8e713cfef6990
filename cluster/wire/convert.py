"""Between the generated messages and our own types.

row_to_wire(json.loads(line), attempt=1)     # a line of metrics.jsonl → MetricRow
row_from_wire(message.rows[0])               # MetricRow → StepRow | EvalRow
state_name(job.state), state_number("RUNNING")
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cluster.wire import pipetrain_pb2 as pb
from coordinator.queue.job_states import STATE_NAMES
from coordinator.train.rows import EvalRow, Row, StepRow


def row_to_wire(row: Mapping[str, Any], attempt: int) -> pb.MetricRow:
    """The message of a parsed line of metrics.jsonl. Raises KeyError, TypeError, ValueError where it is none."""
    values = {key: value for key, value in row.items() if key != "kind"}
    if row["kind"] == "step":
        return pb.MetricRow(attempt=attempt, step=pb.StepRow(**values))
    if row["kind"] == "eval":
        return pb.MetricRow(attempt=attempt, eval=pb.EvalRow(**values))
    raise ValueError(f"a row of metrics is of kind step or eval, not {row['kind']!r}")


def row_from_wire(message: pb.MetricRow) -> Row:
    """The row of a message. Raises ValueError for a kind of row that this version does not know."""
    if message.HasField("step"):
        step = message.step
        return StepRow(
            step=step.step,
            epoch=step.epoch,
            samples=step.samples,
            loss=step.loss,
            seconds=step.seconds,
            grad_norm=step.grad_norm,
            learning_rate=step.learning_rate,
            bubble=step.bubble,
            accuracy=step.accuracy if step.HasField("accuracy") else None,
            bubble_predicted=step.bubble_predicted if step.HasField("bubble_predicted") else None,
            attempt=message.attempt,
        )
    if message.HasField("eval"):
        evaluation = message.eval
        return EvalRow(
            step=evaluation.step,
            epoch=evaluation.epoch,
            loss=evaluation.loss,
            accuracy=evaluation.accuracy if evaluation.HasField("accuracy") else None,
            samples=evaluation.samples,
            attempt=message.attempt,
        )
    raise ValueError("a row of metrics that is neither a step nor an evaluation")


def state_name(number: int) -> str:
    """`RUNNING` for pb.RUNNING; a state of a later version by its number."""
    try:
        return str(pb.State.Name(number))
    except ValueError:
        return f"STATE_{number}"


def state_number(name: str) -> pb.State:
    """pb.RUNNING for `RUNNING` or `running`. Raises ValueError with the names that there are."""
    if name.upper() not in STATE_NAMES:
        raise ValueError(f"got {name!r}, must be a state: {', '.join(STATE_NAMES)}")
    number: pb.State = getattr(pb, name.upper())
    return number


def moment(seconds: float) -> datetime:
    """Seconds since 1970-01-01 as a time with UTC as its zone."""
    return datetime.fromtimestamp(seconds, UTC)


def iso(time: datetime | None) -> str | None:
    """`2026-03-01T12:30:00.250Z`: ISO 8601, UTC, milliseconds. None stays None."""
    if time is None:
        return None
    return time.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
