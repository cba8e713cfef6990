"""Describe why and where a job failed, from its record and its event `failed`. This module does not depend on the
web."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.service.records import JobRecord
from coordinator.queue.job_states import Failed
from stages.actions import Action
from stages.orders import when


@dataclass(frozen=True, slots=True)
class FailureView:
    """The description of a failure. `worker`, `action` and `step` are None if no worker reported the failure.
    `log_text` is part of the line of the worker's log that reports it."""

    cause: str
    where: str
    worker: int | None = None
    action: Action | None = None
    step: int | None = None
    log_text: str = ""


def failure_view(record: JobRecord, details: Mapping[str, Any]) -> FailureView | None:
    """Return the description of a failed job; None for any other job. `details` are those of its event `failed`."""
    if not isinstance(record.state, Failed):
        return None
    place: Mapping[str, Any] = details.get("place") or {}
    worker, step, evaluating = place.get("worker"), place.get("step"), bool(place.get("evaluating"))
    action = Action.parse(place["action"]) if place.get("action") else None
    where = f"In {action}, " if action is not None else ""
    if worker is not None:
        where += f"{'on' if where else 'On'} worker {worker}"
    return FailureView(
        cause=record.state.cause,
        where=_joined(where, _step(step, record.step, record.steps_total, evaluating=evaluating)),
        worker=worker,
        action=action,
        step=step,
        log_text=f"{f' in {action}' if action is not None else ''}{when(step, evaluating=evaluating) or ' failed'}: ",
    )


def line_with(lines: Sequence[str], text: str) -> int | None:
    """Return the index of the last line with this text, because the failure is at the end of the log; None without."""
    return next((i for i in range(len(lines) - 1, -1, -1) if text and text in lines[i]), None)


def _step(step: int | None, made: int, total: int | None, *, evaluating: bool) -> str:
    of = "" if total is None else f" of {total:,}"
    if step is None:
        return f"{made:,}{of} steps were finished" if made else "before the first step"
    if evaluating:
        return f"in the evaluation after step {step:,}{of}"
    return f"step {step:,}{of} ({step - 1:,} finished)"


def _joined(*parts: str) -> str:
    said = ": ".join(part for part in parts if part)
    return said[:1].upper() + said[1:]
