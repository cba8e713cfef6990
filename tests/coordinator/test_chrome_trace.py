from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.chrome_trace import TimedAction, chrome_trace
from coordinator.laws import needs, performed_as
from coordinator.replay import replay
from coordinator.schedules import build
from stages.actions import Action, Program
from tests.coordinator.programs import anything_valid, built_in

_EPSILON = 1e-6  # µs; sums of float64


def timeline(program: Program, seed: int | None = None, offset: float = 0.0) -> list[TimedAction]:
    """A dry run in milliseconds; with a seed, of durations as uneven as measured ones."""
    chance = random.Random(seed)
    seconds = {a: 1e-3 if seed is None else chance.uniform(1e-6, 1e-3) for lane in program.lanes for a in lane}
    spans = replay(program, seconds).spans
    return [TimedAction(w, a, offset + start, offset + end) for w, lane in enumerate(spans) for a, start, end in lane]


def by_phase(trace: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {"M": [], "X": [], "s": [], "f": []}
    for event in trace["traceEvents"]:
        found[event["ph"]].append(event)
    return found


def slice_at(slices: list[dict[str, Any]], event: dict[str, Any]) -> str:
    """The name of the slice that a viewer binds the arrow's end to: the one that is open at its time."""
    (name,) = (
        x["name"]
        for x in slices
        if (x["pid"], x["tid"]) == (event["pid"], event["tid"])
        and x["ts"] - _EPSILON <= event["ts"] < x["ts"] + x["dur"] - _EPSILON
    )
    assert isinstance(name, str)
    return name


def test_the_whole_trace_of_a_small_program() -> None:
    program = build("gpipe", n_stages=2, n_micro_batches=1)
    events = by_phase(chrome_trace(timeline(program), name="small"))
    assert [(e["name"], e["pid"], e["tid"], e["args"]["name"]) for e in events["M"]] == [
        ("process_name", 0, 0, "small"),
        ("thread_name", 0, 0, "worker 0"),
        ("thread_name", 0, 1, "worker 1"),
    ]
    assert [(e["name"], e["tid"], e["ts"], e["dur"], e["cat"], e["args"]) for e in events["X"]] == [
        ("0F0", 0, 0, 1000, "forward", {"stage": 0, "micro_batch": 0, "kind": "forward"}),
        ("1F0", 1, 1000, 1000, "forward", {"stage": 1, "micro_batch": 0, "kind": "forward"}),
        ("1B0", 1, 2000, 1000, "backward", {"stage": 1, "micro_batch": 0, "kind": "backward"}),
        ("0B0", 0, 3000, 1000, "backward", {"stage": 0, "micro_batch": 0, "kind": "backward"}),
    ]
    assert [(s["id"], s["tid"], s["ts"]) for s in events["s"]] == [(1, 0, 999.999), (2, 1, 2999.999)]
    assert [(f["id"], f["tid"], f["ts"], f["bp"]) for f in events["f"]] == [(1, 1, 1000, "e"), (2, 0, 3000, "e")]


@settings(deadline=None, max_examples=60)
@given(built_in(5, 6) | anything_valid(), st.none() | st.integers(0, 2**32), st.sampled_from([0.0, 12345.678]))
def test_slices_do_not_overlap_and_arrows_join_what_hangs_together(
    program: Program, seed: int | None, offset: float
) -> None:
    trace = chrome_trace(timeline(program, seed, offset), name="any")
    assert json.loads(json.dumps(trace)) == trace
    events = by_phase(trace)
    assert sorted(x["name"] for x in events["X"]) == sorted(str(a) for lane in program.lanes for a in lane)
    for worker in range(program.n_workers):
        own = sorted((x for x in events["X"] if x["tid"] == worker), key=lambda x: x["ts"])
        assert [x["name"] for x in own] == [str(action) for action in program.lanes[worker]]
        assert all(first["ts"] + first["dur"] <= second["ts"] + _EPSILON for first, second in pairwise(own))
    there = {action: worker for worker, lane in enumerate(program.lanes) for action in lane}
    crossings = {
        (str(source), str(action))
        for action, worker in there.items()
        for source in (performed_as(needed, there) for needed in needs(action, program.n_stages))
        if there[source] != worker
    }
    starts, ends = {s["id"]: s for s in events["s"]}, {f["id"]: f for f in events["f"]}
    assert starts.keys() == ends.keys()
    assert len(starts) == len(events["s"]) == len(events["f"]) == len(crossings)
    assert {(slice_at(events["X"], starts[i]), slice_at(events["X"], ends[i])) for i in starts} == crossings


def test_times_are_microseconds_from_the_first_action() -> None:
    later, first = (
        TimedAction(0, Action.parse(text), start, start + 0.25) for text, start in (("0F1", 101.0), ("0F0", 100.5))
    )
    events = chrome_trace([later, first], name="x")["traceEvents"]
    assert [(e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"] == [
        ("0F0", 0.0, 250_000.0),
        ("0F1", 500_000.0, 250_000.0),
    ]


def test_a_measured_backward_comes_in_two_parts_and_its_arrow_leaves_from_the_first() -> None:
    timeline = [
        TimedAction(worker, Action.parse(text), start, start + 1.0)
        for worker, text, start in ((0, "0F0", 0.0), (1, "1F0", 1.0), (1, "1I0", 2.0), (1, "1W0", 3.0), (0, "0I0", 3.0))
    ]
    events = chrome_trace(timeline, name="x")["traceEvents"]
    assert [(e["ph"], e["tid"], e["ts"]) for e in events if e["ph"] in "sf"] == [
        ("s", 0, 999_999.999),
        ("f", 1, 1_000_000.0),
        ("s", 1, 2_999_999.999),
        ("f", 0, 3_000_000.0),
    ]


def test_arrows_of_several_steps_stay_within_their_step() -> None:
    program = build("1f1b", n_stages=2, n_micro_batches=2)
    both = timeline(program) + timeline(program, offset=1.0)
    events = by_phase(chrome_trace(both, name="two steps"))
    assert len(events["s"]) == 8
    ends = {f["id"]: f["ts"] for f in events["f"]}
    assert all(abs(ends[s["id"]] - s["ts"]) < 0.5e6 for s in events["s"])


def test_a_process_a_host() -> None:
    program = build("gpipe", n_stages=3, n_micro_batches=1)
    events = by_phase(chrome_trace(timeline(program), name="job", hosts={0: "a", 1: "b", 2: "a"}))
    names = {e["pid"]: e["args"]["name"] for e in events["M"] if e["name"] == "process_name"}
    assert names == {0: "job on a", 1: "job on b"}
    assert {x["tid"]: x["pid"] for x in events["X"]} == {0: 0, 1: 1, 2: 0}


def test_nothing_is_an_empty_trace() -> None:
    assert chrome_trace([], name="none") == {"traceEvents": [], "displayTimeUnit": "ms"}
