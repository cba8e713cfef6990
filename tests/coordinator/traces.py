"""Traces for Chrome: how tests write and read them, and the laws of every trace."""

from __future__ import annotations

import io
import json
import random
from itertools import pairwise
from typing import Any

from coordinator.program.laws import needs, performed_as
from coordinator.program.replay import replay
from coordinator.trace.chrome_trace import TimedAction, Track, write_chrome_trace
from coordinator.trace.trace_memory import TraceMemory
from stages.actions import Program

Event = dict[str, Any]
_FIELDS = {
    "M": {"ph", "pid", "tid", "name", "args"},
    "X": {"ph", "pid", "tid", "name", "cat", "ts", "dur", "args"},
    "C": {"ph", "pid", "tid", "name", "ts", "args"},
    "s": {"ph", "pid", "tid", "name", "cat", "ts", "id"},
    "f": {"ph", "pid", "tid", "name", "cat", "ts", "id", "bp"},
    "i": {"ph", "pid", "tid", "name", "cat", "ts", "s", "args"},
}


def written(*tracks: Track, name: str = "any", memory: TraceMemory | None = None) -> list[Event]:
    """Return the events of a trace, read from its file."""
    file = io.BytesIO()
    write_chrome_trace(file, *tracks, name=name, memory=memory)
    trace: list[Event] = json.loads(file.getvalue())
    return trace


def facts_of(trace: list[Event]) -> Event:
    """Return the facts of the only track of a trace."""
    (facts,) = (event["args"] for event in trace if event["ph"] == "i")
    found: Event = facts
    return found


def timeline(program: Program, seed: int | None = None, offset: float = 0.0, step: int = 0) -> list[TimedAction]:
    """Return a dry run in milliseconds; with a seed, its durations are as uneven as measured ones."""
    chance = random.Random(seed)
    seconds = {a: 1e-3 if seed is None else chance.uniform(1e-6, 1e-3) for lane in program.lanes for a in lane}
    spans = replay(program, seconds).spans
    return [
        TimedAction(w, a, offset + start, offset + end, step) for w, lane in enumerate(spans) for a, start, end in lane
    ]


def several_steps(program: Program, n_steps: int, seed: int) -> list[TimedAction]:
    """Return steps as workers do them: a worker begins a step when its own lane of the step before is done."""
    free = [0.0] * program.n_workers
    found: list[TimedAction] = []
    for step in range(1, n_steps + 1):
        one = timeline(program, seed + step)
        shift = max(
            (free[w] - min(item.start for item in one if item.worker == w) for w in range(program.n_workers)),
        )
        for item in one:
            found.append(item._replace(start=item.start + shift, end=item.end + shift, step=step))
            free[item.worker] = max(free[item.worker], item.end + shift)
    return found


def by_phase(trace: list[Event]) -> dict[str, list[Event]]:
    """Return events by kind, each with only the fields that the format requires."""
    found: dict[str, list[Event]] = {phase: [] for phase in _FIELDS}
    for event in trace:
        assert event.keys() == _FIELDS[event["ph"]], event
        assert event["pid"] >= 1
        assert event["tid"] >= 0
        assert event.get("ts", 0) >= 0
        found[event["ph"]].append(event)
    return found


def slice_at(slices: list[Event], event: Event) -> tuple[int, str]:
    """Return the step and name of the slice to which a viewer attaches the arrow's end: the slice open at its time."""
    (found,) = (
        x
        for x in slices
        if (x["pid"], x["tid"]) == (event["pid"], event["tid"])
        and _ns(x["ts"]) <= _ns(event["ts"]) < _ns(x["ts"]) + _ns(x["dur"])
    )
    return found["args"]["step"], found["name"]


def _ns(microseconds: float) -> int:
    return round(1000 * microseconds)


def check(trace: list[Event]) -> dict[str, list[Event]]:
    """Check the laws of every trace: slices of a thread never overlap; an arrow has one end, not before its start."""
    events = by_phase(trace)
    threads: dict[tuple[int, int], list[Event]] = {}
    for x in events["X"]:
        threads.setdefault((x["pid"], x["tid"]), []).append(x)
    for own in threads.values():
        own.sort(key=lambda x: (x["ts"], x["dur"]))
        assert all(_ns(a["ts"]) + _ns(a["dur"]) <= _ns(b["ts"]) for a, b in pairwise(own))
    starts, ends = {s["id"]: s for s in events["s"]}, {f["id"]: f for f in events["f"]}
    assert starts.keys() == ends.keys()
    assert len(starts) == len(events["s"]) == len(events["f"])
    assert all(ends[i]["ts"] >= start["ts"] for i, start in starts.items())
    named = {(e["pid"], e["tid"]) for e in events["M"] if e["name"] == "thread_name"}
    assert threads.keys() == named
    assert {pid for pid, _ in named} == {e["pid"] for e in events["M"] if e["name"] == "process_name"}
    return events


def joined(events: dict[str, list[Event]]) -> list[tuple[tuple[int, str], tuple[int, str]]]:
    """Return the pairs of slices that arrows join."""
    ends = {f["id"]: f for f in events["f"]}
    return [(slice_at(events["X"], s), slice_at(events["X"], ends[s["id"]])) for s in events["s"]]


def crossings(program: Program) -> set[tuple[str, str]]:
    """Return the pairs of actions on different workers of which one needs the other."""
    there = {action: worker for worker, lane in enumerate(program.lanes) for action in lane}
    return {
        (str(source), str(action))
        for action, worker in there.items()
        for source in (performed_as(needed, there) for needed in needs(action, program.n_stages))
        if there[source] != worker
    }
