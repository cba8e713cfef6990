"""Chrome's trace format, which Perfetto opens: predicted and measured programs through the same writer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from stages.actions import Action, Kind


class TimedAction(NamedTuple):
    """An action that a worker performed; seconds on one clock."""

    worker: int
    action: Action
    start: float
    end: float


_NAMES = {
    Kind.FORWARD: "forward",
    Kind.BACKWARD: "backward",
    Kind.BACKWARD_INPUT: "input gradient",
    Kind.BACKWARD_WEIGHT: "weight gradient",
}
_INSIDE_US = 0.001  # an arrow leaves this long before its slice ends, or it would be bound to the next slice


def chrome_trace(
    timeline: Iterable[TimedAction], *, name: str, hosts: Mapping[int, str] | None = None
) -> dict[str, Any]:
    """The trace as JSON data, times in µs from the first action's start.

    A process a host, a thread a worker, a slice an action, an arrow for each array that went to another worker.
    `hosts[w]` is the host of worker w; without them all workers are on one.
    """
    actions = sorted(timeline, key=lambda item: (item.start, item.end, item.worker))
    workers = sorted({item.worker for item in actions})
    where = {worker: (hosts or {}).get(worker, "") for worker in workers}
    pids = {host: pid for pid, host in enumerate(dict.fromkeys(where.values()))}
    pid_of = {worker: pids[host] for worker, host in where.items()}
    zero = actions[0].start if actions else 0.0
    events = [_metadata("process_name", f"{name} on {host}" if host else name, pid) for host, pid in pids.items()]
    events += [_metadata("thread_name", f"worker {worker}", pid_of[worker], worker) for worker in workers]
    sent: dict[tuple[int, Kind, int], TimedAction] = {}
    n_arrows = 0
    for item in actions:
        events.append(_slice(item, zero, pid_of[item.worker]))
        action = item.action
        if action.kind is Kind.BACKWARD_WEIGHT:
            continue
        direction = Kind.FORWARD if action.kind is Kind.FORWARD else Kind.BACKWARD_INPUT
        step = 1 if direction is Kind.FORWARD else -1
        source = sent.pop((action.stage, direction, action.micro_batch), None)
        sent[action.stage + step, direction, action.micro_batch] = item
        if source is not None and source.worker != item.worker:
            n_arrows += 1
            events += _arrow(source, item, zero, n_arrows, pid_of)
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _metadata(what: str, name: str, pid: int, tid: int = 0) -> dict[str, Any]:
    return {"ph": "M", "pid": pid, "tid": tid, "name": what, "args": {"name": name}}


def _slice(item: TimedAction, zero: float, pid: int) -> dict[str, Any]:
    action, start = item.action, _us(item.start - zero)
    return {
        "ph": "X",
        "pid": pid,
        "tid": item.worker,
        "name": str(action),
        "cat": _NAMES[action.kind],
        "ts": start,
        "dur": round(_us(item.end - zero) - start, 3),  # not of the difference: rounded, that may reach into the next
        "args": {"stage": action.stage, "micro_batch": action.micro_batch, "kind": _NAMES[action.kind]},
    }


def _arrow(
    source: TimedAction, target: TimedAction, zero: float, number: int, pid_of: Mapping[int, int]
) -> list[dict[str, Any]]:
    leaves = max(_us(source.start - zero), round(_us(source.end - zero) - _INSIDE_US, 3))
    same = {"name": "array", "cat": "array", "id": number}
    return [
        {"ph": "s", "pid": pid_of[source.worker], "tid": source.worker, "ts": leaves, **same},
        {
            "ph": "f",
            "bp": "e",
            "pid": pid_of[target.worker],
            "tid": target.worker,
            "ts": _us(target.start - zero),
            **same,
        },
    ]


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 3)
