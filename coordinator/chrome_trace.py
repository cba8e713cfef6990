"""Chrome's trace format, which Perfetto opens: predicted and measured programs through the same writer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from stages.actions import Action, Kind


class TimedAction(NamedTuple):
    """An action that a worker performed; seconds on one clock."""

    worker: int
    action: Action
    start: float
    end: float


_NAMES = {Kind.FORWARD: "forward", Kind.BACKWARD: "backward", Kind.BACKWARD_INPUT: "input gradient", Kind.BACKWARD_WEIGHT: "weight gradient"}


def chrome_trace(timeline: Iterable[TimedAction], *, name: str) -> dict[str, Any]:
    """The trace: a thread a worker, a slice an action, an arrow for each array that went to another worker."""
    actions = sorted(timeline, key=lambda item: item.start)
    zero = actions[0].start if actions else 0.0
    events: list[dict[str, Any]] = [{"ph": "M", "pid": 0, "name": "process_name", "args": {"name": name}}]
    for worker in sorted({item.worker for item in actions}):
        events.append({"ph": "M", "pid": 0, "tid": worker, "name": "thread_name", "args": {"name": f"worker {worker}"}})
    latest: dict[tuple[int, Kind, int], TimedAction] = {}
    flows = 0
    for item in actions:
        action, start = item.action, _us(item.start - zero)
        events.append(
            {
                "ph": "X",
                "pid": 0,
                "tid": item.worker,
                "name": str(action),
                "cat": _NAMES[action.kind],
                "ts": start,
                "dur": _us(item.end - item.start),
                "args": {"stage": action.stage, "micro_batch": action.micro_batch, "kind": _NAMES[action.kind]},
            }
        )
        kind = Kind.BACKWARD_INPUT if action.kind is Kind.BACKWARD else action.kind
        source = latest.get((action.stage + (-1 if kind is Kind.FORWARD else 1), kind, action.micro_batch))
        if kind is not Kind.BACKWARD_WEIGHT:
            latest[action.stage, kind, action.micro_batch] = item
            if source is not None and source.worker != item.worker:
                flows += 1
                flow = {"pid": 0, "name": "array", "cat": "array", "id": flows}
                events.append({"ph": "s", "tid": source.worker, "ts": _us(source.end - zero), **flow})
                events.append({"ph": "f", "bp": "e", "tid": item.worker, "ts": start, **flow})
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 3)
