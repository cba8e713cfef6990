"""A trace that is written step by step."""

from __future__ import annotations

import io
import json

import pytest

from coordinator.schedules import build
from coordinator.trace.chrome_trace import GrowingTrace, Track, lay_over
from coordinator.trace.trace_memory import TraceMemory
from coordinator.train.workers import ClockFix
from tests.coordinator.traces import (
    Event,
    check,
    crossings,
    joined,
    several_steps,
    timeline,
    written,
)


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
