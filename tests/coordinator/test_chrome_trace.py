from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.schedules import build
from coordinator.trace.chrome_trace import TimedAction, Track, lay_over
from coordinator.trace.trace_memory import TraceMemory
from coordinator.train.workers import ClockFix
from stages.actions import Action, Program
from tests.coordinator.programs import B, F, I, W, anything_valid, built_in
from tests.coordinator.traces import (
    Event,
    check,
    crossings,
    facts_of,
    joined,
    several_steps,
    timeline,
    written,
)


def test_the_whole_trace_of_a_small_program() -> None:
    program = build("gpipe", n_stages=2, n_micro_batches=1)
    memory = TraceMemory(for_input=[30, 40], for_weight=[20, 40], rows=lambda step: (5,))
    clocks = {0: ClockFix(), 1: ClockFix(0.0125, 0.00005)}
    track = Track(timeline=timeline(program), label="measured", hosts={0: "a", 1: "b"}, clocks=clocks)
    where = [{"pid": 1, "tid": 1}, {"pid": 2, "tid": 2}]

    def named(what: str, pid: int, tid: int, **arguments: Any) -> Event:
        return {"ph": "M", "pid": pid, "tid": tid, "name": what, "args": arguments}

    def drawn(worker: int, name: str, kind: str, at: float) -> Event:
        facts = {"step": 0, "stage": worker, "micro_batch": 0, "kind": kind}
        return {"ph": "X", **where[worker], "name": name, "cat": kind, "ts": at, "dur": 1000.0, "args": facts}

    def keeps(worker: int, at: float, kept: int) -> Event:
        return {"ph": "C", **where[worker], "name": f"worker {worker} keeps", "ts": at, "args": {"bytes": kept}}

    def arrow(number: int, source: int, leaves: float, target: int, comes: float) -> list[Event]:
        same = {"name": "array", "cat": "array", "id": number}
        return [
            {"ph": "s", **where[source], "ts": leaves, **same},
            {"ph": "f", "bp": "e", **where[target], "ts": comes, **same},
        ]

    facts = {
        "track": "measured",
        "clocks": {
            "0": {"offset_seconds": 0.0, "error_seconds": 0.0},
            "1": {"offset_seconds": 0.0125, "error_seconds": 0.00005},
        },
        "arrays": 2,
        "arrived_before_sent": 0,
        "arrived_before_sent_beyond_clock_error": 0,
        "largest_seconds_before_sent": 0.0,
        "arrows_left_out": 0,
        "slices_shortened_by_a_clock_change": 0,
    }
    at_end = {"pid": 1, "tid": 0, "ts": 4000.0, "name": "facts of the track", "cat": "track"}
    assert written(track, name="small", memory=memory) == [
        named("process_name", 1, 0, name="small measured on a"),
        named("process_sort_index", 1, 0, sort_index=1),
        named("process_labels", 1, 0, labels="clock: the coordinator's"),
        named("thread_name", 1, 1, name="worker 0"),
        named("thread_sort_index", 1, 1, sort_index=0),
        named("process_name", 2, 0, name="small measured on b"),
        named("process_sort_index", 2, 0, sort_index=2),
        named("process_labels", 2, 0, labels="clock: +12.500 ms ± 0.050 ms"),
        named("thread_name", 2, 2, name="worker 1"),
        named("thread_sort_index", 2, 2, sort_index=1),
        keeps(0, 0, 0),
        drawn(0, "0F0", "forward", 0),
        keeps(0, 1000, 150),
        drawn(0, "0B0", "backward", 3000),
        keeps(0, 4000, 0),
        keeps(1, 1000, 0),
        drawn(1, "1F0", "forward", 1000),
        keeps(1, 2000, 200),
        drawn(1, "1B0", "backward", 2000),
        keeps(1, 3000, 0),
        *arrow(1, 1, 2999.999, 0, 3000),
        *arrow(2, 0, 999.999, 1, 1000),
        {"ph": "i", "s": "p", **at_end, "args": facts},
    ]


@settings(deadline=None, max_examples=60)
@given(built_in(5, 6) | anything_valid(), st.none() | st.integers(0, 2**32), st.sampled_from([0.0, 12345.678]))
def test_slices_do_not_overlap_and_arrows_join_what_hangs_together(
    program: Program, seed: int | None, offset: float
) -> None:
    events = check(written(Track(timeline=timeline(program, seed, offset))))
    assert sorted(x["name"] for x in events["X"]) == sorted(str(a) for lane in program.lanes for a in lane)
    for worker in range(program.n_workers):
        own = sorted((x for x in events["X"] if x["tid"] == worker + 1), key=lambda x: x["ts"])
        assert [x["name"] for x in own] == [str(action) for action in program.lanes[worker]]
    found = [(source, target) for (_, source), (_, target) in joined(events)]
    assert len(found) == len(set(found))
    assert set(found) == crossings(program)


@settings(deadline=None, max_examples=60)
@given(built_in(5, 5) | anything_valid(), st.integers(1, 4), st.integers(0, 2**32), st.sampled_from([0.0, 1e-5, 5e-3]))
def test_arrows_of_steps_that_overlap_stay_in_their_step_even_where_clocks_are_wrong(
    program: Program, n_steps: int, seed: int, wrong_s: float
) -> None:
    chance = random.Random(seed)
    errors = [chance.uniform(-wrong_s, wrong_s) for _ in range(program.n_workers)]
    whole = [
        item._replace(start=item.start + errors[item.worker], end=item.end + errors[item.worker])
        for item in several_steps(program, n_steps, seed)
    ]
    chance.shuffle(whole)
    clocks = {worker: ClockFix(0.0, wrong_s) for worker in range(program.n_workers)}
    trace = written(Track(timeline=whole, clocks=clocks))
    facts = facts_of(trace)
    found = joined(check(trace))
    there = crossings(program)
    assert all(a == b and (source, target) in there for (a, source), (b, target) in found)
    assert len(found) == len(set(found)) == n_steps * len(there) - facts["arrows_left_out"]
    assert facts["arrays"] == n_steps * len(there)
    assert facts["arrows_left_out"] <= facts["arrived_before_sent"]
    assert facts["arrived_before_sent_beyond_clock_error"] == 0
    assert facts["largest_seconds_before_sent"] <= 2 * wrong_s + 1e-9
    if not wrong_s:
        assert facts["arrived_before_sent"] == 0


def test_an_array_that_seems_to_arrive_too_early_is_counted_and_its_arrow_never_points_back() -> None:
    def actions(sent: float, arrived: float) -> list[TimedAction]:
        return [
            TimedAction(0, Action.parse("0F0"), sent - 1.0, sent),
            TimedAction(1, Action.parse("1F0"), arrived, arrived + 1.0),
        ]

    fine, wrong = {0: ClockFix(), 1: ClockFix(0.0, 0.5)}, {0: ClockFix(), 1: ClockFix(0.0, 0.1)}
    for clocks, beyond in ((fine, 0), (wrong, 1)):
        trace = written(Track(timeline=actions(1.0, 0.75), clocks=clocks))
        facts = facts_of(trace)
        assert (facts["arrived_before_sent"], facts["arrived_before_sent_beyond_clock_error"]) == (1, beyond)
        assert (facts["largest_seconds_before_sent"], facts["arrows_left_out"]) == (0.25, 0)
        assert joined(check(trace)) == [((1, "0F0"), (1, "1F0"))]
    trace = written(Track(timeline=actions(3.0, 0.0), clocks=fine))
    facts = facts_of(trace)
    assert (facts["arrived_before_sent"], facts["arrows_left_out"]) == (1, 1)
    assert joined(check(trace)) == []


def test_slices_of_a_thread_do_not_overlap_where_its_clock_was_set_anew_between_steps() -> None:
    late = [TimedAction(0, Action.parse("0F0"), 0.0, 1.0, 1), TimedAction(0, Action.parse("0F0"), 0.75, 2.0, 2)]
    trace = written(Track(timeline=late))
    events = check(trace)
    assert [(x["ts"], x["dur"]) for x in events["X"]] == [(0, 1e6), (1e6, 1e6)]
    assert facts_of(trace)["slices_shortened_by_a_clock_change"] == 1


def test_times_are_microseconds_from_the_first_action() -> None:
    later, first = (
        TimedAction(0, Action.parse(text), start, start + 0.25) for text, start in (("0F1", 101.0), ("0F0", 100.5))
    )
    events = check(written(Track(timeline=[later, first])))
    assert [(e["name"], e["ts"], e["dur"]) for e in events["X"]] == [("0F0", 0.0, 250_000.0), ("0F1", 500_000.0, 250e3)]


def test_a_measured_backward_comes_in_two_parts_and_its_arrow_leaves_from_the_first() -> None:
    actions = [
        TimedAction(worker, Action.parse(text), start, start + 1.0)
        for worker, text, start in ((0, "0F0", 0.0), (1, "1F0", 1.0), (1, "1I0", 2.0), (1, "1W0", 3.0), (0, "0I0", 3.0))
    ]
    events = check(written(Track(timeline=actions)))
    assert set(joined(events)) == {((1, "0F0"), (1, "1F0")), ((1, "1I0"), (1, "0I0"))}


def test_a_process_a_host_and_a_thread_a_worker() -> None:
    program = build("gpipe", n_stages=3, n_micro_batches=1)
    events = check(written(Track(timeline=timeline(program), hosts={0: "a", 1: "b", 2: "a"}), name="job"))
    names = {e["pid"]: e["args"]["name"] for e in events["M"] if e["name"] == "process_name"}
    assert names == {1: "job on a", 2: "job on b"}
    threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in events["M"] if e["name"] == "thread_name"}
    assert threads == {(1, 1): "worker 0", (2, 2): "worker 1", (1, 3): "worker 2"}
    assert {(x["args"]["stage"], x["pid"]) for x in events["X"]} == {(0, 1), (1, 2), (2, 1)}


def test_measured_and_predicted_lie_over_each_other_in_one_file() -> None:
    program = build("1f1b", n_stages=3, n_micro_batches=4)
    measured = [item._replace(start=50 + item.start, end=50 + item.end) for item in several_steps(program, 3, seed=5)]
    predicted = lay_over(timeline(program), measured)
    events = check(written(Track(timeline=measured, label="measured"), Track(timeline=predicted, label="predicted")))
    names = {e["pid"]: e["args"]["name"] for e in events["M"] if e["name"] == "process_name"}
    assert names == {1: "any measured", 2: "any predicted"}
    first = {
        (x["pid"], x["args"]["step"]): min(
            y["ts"] for y in events["X"] if (y["pid"], y["args"]["step"]) == (x["pid"], x["args"]["step"])
        )
        for x in events["X"]
    }
    assert first[1, 1] == first[2, 1] == 0
    assert len(events["X"]) == 2 * 3 * sum(map(len, program.lanes))
    assert all(first[2, step] >= first[1, step] for step in (1, 2, 3))
    assert {(a, b) for (a, _), (b, _) in joined(events)} == {(step, step) for step in (1, 2, 3)}


def test_a_prediction_is_laid_only_over_steps_of_its_own_micro_batches() -> None:
    full, rest = (build("gpipe", n_stages=2, n_micro_batches=m) for m in (3, 1))
    measured = timeline(full, step=1) + timeline(rest, offset=1.0, step=2) + timeline(full, offset=2.0, step=3)
    assert sorted({item.step for item in lay_over(timeline(full), measured)}) == [1, 3]
    assert lay_over([], measured) == []
    assert lay_over(timeline(full), []) == []


def test_kinds_are_told_in_words() -> None:
    actions = [TimedAction(0, Action(0, kind, 0), at, at + 1.0) for at, kind in enumerate((F, I, W, B))]
    events = check(written(Track(timeline=actions)))
    assert [x["cat"] for x in events["X"]] == ["forward", "input gradient", "weight gradient", "backward"]


def test_nothing_is_an_empty_trace() -> None:
    assert written(Track(timeline=[]), name="none") == written(name="none") == []
