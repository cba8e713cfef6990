from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.job.spec import parse_job
from coordinator.plan.blueprint import make_blueprint
from coordinator.plan.memory import predict_stage
from coordinator.program.laws import needs, performed_as
from coordinator.program.replay import replay
from coordinator.schedules import build
from coordinator.trace.chrome_trace import GrowingTrace, TimedAction, Track, lay_over, write_chrome_trace
from coordinator.trace.trace_memory import TraceMemory, trace_memory
from coordinator.train.workers import ClockFix
from stages.actions import Action, Program
from tests.coordinator.programs import B, F, I, W, anything_valid, built_in

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
    """The events of a trace, read back from its file."""
    file = io.BytesIO()
    write_chrome_trace(file, *tracks, name=name, memory=memory)
    trace: list[Event] = json.loads(file.getvalue())
    return trace


def facts_of(trace: list[Event]) -> Event:
    """What the only track of a trace says of itself."""
    (facts,) = (event["args"] for event in trace if event["ph"] == "i")
    found: Event = facts
    return found


def timeline(program: Program, seed: int | None = None, offset: float = 0.0, step: int = 0) -> list[TimedAction]:
    """A dry run in milliseconds; with a seed, of durations as uneven as measured ones."""
    chance = random.Random(seed)
    seconds = {a: 1e-3 if seed is None else chance.uniform(1e-6, 1e-3) for lane in program.lanes for a in lane}
    spans = replay(program, seconds).spans
    return [
        TimedAction(w, a, offset + start, offset + end, step) for w, lane in enumerate(spans) for a, start, end in lane
    ]


def several_steps(program: Program, n_steps: int, seed: int) -> list[TimedAction]:
    """Steps as workers do them: each begins when its own lane of the step before is through, not when all are."""
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
    """Events by kind, each with just the fields that the format asks of it."""
    found: dict[str, list[Event]] = {phase: [] for phase in _FIELDS}
    for event in trace:
        assert event.keys() == _FIELDS[event["ph"]], event
        assert event["pid"] >= 1
        assert event["tid"] >= 0
        assert event.get("ts", 0) >= 0
        found[event["ph"]].append(event)
    return found


def slice_at(slices: list[Event], event: Event) -> tuple[int, str]:
    """The step and name of the slice that a viewer binds the arrow's end to: the one that is open at its time."""
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
    """What holds of every trace: slices of a thread never overlap, an arrow has one end, and not before its start."""
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
    """The slices that arrows join."""
    ends = {f["id"]: f for f in events["f"]}
    return [(slice_at(events["X"], s), slice_at(events["X"], ends[s["id"]])) for s in events["s"]]


def crossings(program: Program) -> set[tuple[str, str]]:
    """What hangs together on different workers."""
    there = {action: worker for worker, lane in enumerate(program.lanes) for action in lane}
    return {
        (str(source), str(action))
        for action, worker in there.items()
        for source in (performed_as(needed, there) for needed in needs(action, program.n_stages))
        if there[source] != worker
    }


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


def _job(micro_batches: int, group: int, schedule: str, stages: int) -> dict[str, Any]:
    layers = [{"linear": {"units": 6}}, "tanh", {"linear": {"units": 5}}, "gelu", {"linear": {"units": 3}}, "relu"]
    return {
        "model": {"input": [4], "layers": [*layers, {"linear": {"units": 1}}], "loss": "mse"},
        "data": {"source": "diabetes"},
        "training": {
            "epochs": 2,
            "batch_size": 22,
            "micro_batches": micro_batches,
            "optimizer": {"sgd": {"learning_rate": 0.1}},
        },
        "pipeline": {"stages": stages, "schedule": schedule, "weight_grad_group": group},
    }


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved-1f1b", "zb-h1"])
@pytest.mark.parametrize(("micro_batches", "group"), [(1, 1), (4, 1), (5, 2), (6, 4)])
def test_counters_peak_at_the_bytes_that_the_planner_predicts_and_end_at_none(
    schedule: str, micro_batches: int, group: int
) -> None:
    blueprint = make_blueprint(parse_job(_job(micro_batches, group, schedule, stages=4)), 50)
    program, spec = blueprint.program, blueprint.spec
    steps = [timeline(program, seed=3, offset=float(step), step=step) for step in (1, 4)]  # a later epoch's rows too
    events = check(
        written(Track(timeline=[item for step in steps for item in step]), memory=trace_memory(blueprint, 50))
    )
    for worker, lane in enumerate(program.lanes):
        counts = [(e["ts"], e["args"]["bytes"]) for e in events["C"] if e["name"] == f"worker {worker} keeps"]
        assert counts == sorted(counts, key=lambda count: count[0])
        assert (counts[0][1], counts[-1][1]) == (0, 0)
        held = sorted({action.stage for action in lane})
        peaks = [
            predict_stage(
                spec.model_spec(), blueprint.bounds, s, spec.optimizer(), lane, blueprint.micro_batch_rows, group
            ).saved
            for s in held
        ]
        assert max(count for _, count in counts) <= sum(peaks)
        if len(held) == 1:
            assert max(count for _, count in counts) == peaks[0]


def test_a_short_batch_keeps_less() -> None:
    blueprint = make_blueprint(parse_job(_job(4, 1, "gpipe", stages=1)), 50)
    memory = trace_memory(blueprint, 50)
    assert [tuple(memory.rows(step)) for step in (1, 2, 3, 4)] == [
        (6, 6, 5, 5),
        (6, 6, 5, 5),
        (2, 2, 1, 1),
        (6, 6, 5, 5),
    ]
    program: Sequence[TimedAction] = timeline(blueprint.program, step=3)
    events = check(written(Track(timeline=program), memory=memory))
    row = memory.for_input[0]
    assert max(e["args"]["bytes"] for e in events["C"]) == 6 * row


def test_kinds_are_told_in_words() -> None:
    actions = [TimedAction(0, Action(0, kind, 0), at, at + 1.0) for at, kind in enumerate((F, I, W, B))]
    events = check(written(Track(timeline=actions)))
    assert [x["cat"] for x in events["X"]] == ["forward", "input gradient", "weight gradient", "backward"]


def test_nothing_is_an_empty_trace() -> None:
    assert written(Track(timeline=[]), name="none") == written(name="none") == []


@pytest.mark.parametrize("schedule", ["1f1b", "interleaved-1f1b", "zb-h1"])
def test_a_trace_that_grows_has_after_each_step_what_the_whole_one_has_of_it(schedule: str) -> None:
    program = build(schedule, n_stages=4, n_micro_batches=5)
    actions, hosts = several_steps(program, 3, seed=8), {w: "ab"[w % 2] for w in range(program.n_workers)}
    clocks = {worker: ClockFix(0.001 * worker, 1e-5) for worker in range(program.n_workers)}
    dry = lay_over(timeline(program), actions)
    memory = TraceMemory(for_input=[3] * 4, for_weight=[1] * 4, rows=lambda step: (2,) * 5)
    file = io.BytesIO()
    trace = GrowingTrace(file, name="any", hosts=hosts, memory=memory)
    measured = Track(timeline=actions, label="measured", hosts=hosts, clocks=clocks)
    whole = written(measured, Track(timeline=dry, label="predicted", hosts=hosts), memory=memory)
    for step in (1, 2, 3):
        trace.add([item for item in actions if item.step == step], clocks)
        cut: list[Event] = json.loads(file.getvalue() + b"]")
        assert all(event in whole for event in cut if event["ph"] in "MXC")
        events = check(cut)
        assert len(events["X"]) == step * sum(map(len, program.lanes))
        assert len(joined(events)) == step * len(crossings(program))
        assert not events["i"], "facts come with the end"
    trace.close(dry)
    complete: list[Event] = json.loads(file.getvalue())
    check(complete)

    def without_ids(events: list[Event]) -> list[str]:
        return sorted(json.dumps({**event, "id": 0}, sort_keys=True) for event in events)

    assert without_ids(complete) == without_ids(whole)
