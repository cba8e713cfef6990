"""Chrome's trace format: slices, arrows, names and units."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coordinator.chrome_trace import TimedAction, chrome_trace
from coordinator.replay import replay
from coordinator.schedules import SCHEDULES, build
from stages.actions import Action


def trace_of(name: str, hosts: dict[int, str] | None = None) -> list[dict[str, Any]]:
    dry = replay(build(name, n_stages=4, n_micro_batches=6))
    timeline = [TimedAction(worker, *span) for worker, lane in enumerate(dry.spans) for span in lane]
    events = json.loads(json.dumps(chrome_trace(timeline, name=name, hosts=hosts)))["traceEvents"]
    assert isinstance(events, list)
    return events


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_slice_an_action_and_an_arrow_an_array(name: str) -> None:
    events, made = trace_of(name), build(name, n_stages=4, n_micro_batches=6)
    slices = {(e["tid"], e["name"]): e for e in events if e["ph"] == "X"}
    assert set(slices) == {(worker, str(action)) for worker, lane in enumerate(made.lanes) for action in lane}
    starts, ends = ({e["id"]: e for e in events if e["ph"] == phase} for phase in "sf")
    assert starts.keys() == ends.keys()
    assert len(starts) == 2 * (4 - 1) * 6, "there and back between every two stages, each on another worker"
    for number, start in starts.items():
        end = ends[number]
        assert start["tid"] != end["tid"]
        assert start["ts"] < end["ts"]
        assert any(e["tid"] == start["tid"] and e["ts"] <= start["ts"] < e["ts"] + e["dur"] for e in slices.values())
        assert any(e["tid"] == end["tid"] and e["ts"] == end["ts"] for e in slices.values())


def test_a_process_a_host_and_a_thread_a_worker() -> None:
    events = trace_of("1f1b", {0: "a", 1: "a", 2: "b", 3: "b"})
    named = [(e["name"], e["pid"], e["tid"], e["args"]["name"]) for e in events if e["ph"] == "M"]
    assert named == [
        ("process_name", 0, 0, "1f1b on a"),
        ("process_name", 1, 0, "1f1b on b"),
        ("thread_name", 0, 0, "worker 0"),
        ("thread_name", 0, 1, "worker 1"),
        ("thread_name", 1, 2, "worker 2"),
        ("thread_name", 1, 3, "worker 3"),
    ]
    assert {(e["pid"], e["tid"]) for e in events if e["ph"] == "X"} == {(0, 0), (0, 1), (1, 2), (1, 3)}


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


def test_the_same_actions_in_two_steps_have_arrows_of_their_own() -> None:
    timeline = [
        TimedAction(worker, Action.parse(text), start, start + 1.0)
        for worker, text, start in ((0, "0F0", 0.0), (1, "1F0", 1.0), (0, "0F0", 10.0), (1, "1F0", 11.0))
    ]
    events = chrome_trace(timeline, name="x")["traceEvents"]
    assert [e["ts"] for e in events if e["ph"] == "f"] == [1_000_000.0, 11_000_000.0]


def test_nothing_makes_an_empty_trace() -> None:
    assert chrome_trace([], name="x")["traceEvents"] == []
