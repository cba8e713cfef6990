"""Counters of a trace: the bytes that each worker keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from coordinator.job.spec import parse_job
from coordinator.plan.blueprint import make_blueprint
from coordinator.plan.memory import predict_stage
from coordinator.trace.chrome_trace import TimedAction, Track
from coordinator.trace.trace_memory import trace_memory
from tests.coordinator.traces import (
    check,
    timeline,
    written,
)


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


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved-1f1b", "zb-h1", "zb-h2", "zbv", "v-half", "v-min"])
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
