"""A runner's events as changes of its job's state, and as lines of text."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks.recorded_jobs import classifier, train
from cluster.service.run_events import details, happening, seconds, text
from coordinator.queue.happenings import Preparation, RunFailed, RunFinished, RunStopped, Started
from coordinator.queue.job_states import TRANSITIONS, Running, Starting

PREPARING = {"event": "preparing", "pid": 7, "host": "vm", "attempt": 1}
STARTING = {
    "event": "starting", "workers": 1, "stages": 2, "schedule": "1f1b", "micro_batches": 8, "steps_total": 1,
}  # fmt: skip
STARTED = {"event": "started", "workers": [{"host": "b"}, {"host": "a"}, {"host": "b"}]}


@pytest.mark.parametrize(
    ("event", "means", "says"),
    [
        (PREPARING, Preparation("reading its data"), "the runner is process 7 on vm; reads the data"),
        (
            STARTING,
            Preparation("starting 1 worker"),
            "starts 1 worker for 2 stages, 1f1b, 8 micro-batches, 1 step to make",
        ),
        ({"event": "waiting", "detail": "waits for 2 CPUs"}, Preparation("waits for 2 CPUs"), "waits for 2 CPUs"),
        (STARTED, Started(), "training began on a, b"),
        ({"event": "finished", "step": 690}, RunFinished(), "all 690 steps made, model saved"),
        (
            {"event": "stopped", "step": 12, "saved": True},
            RunStopped(12, True, 12),
            "stopped at step 12, weights saved",
        ),
        (
            {"event": "stopped", "step": 12, "saved": False, "checkpoint": 12},
            RunStopped(12, False, 12),
            "stopped at step 12: its checkpoint is saved, its weights are not",
        ),
        (
            {"event": "stopped", "step": 12, "saved": False, "checkpoint": 8},
            RunStopped(12, False, 8),
            "stopped at step 12; its grace was over before it was saved: its newest checkpoint is of step 8",
        ),
        (
            {"event": "stopped", "step": 12, "saved": False, "checkpoint": None},
            RunStopped(12, False, None),
            "stopped at step 12; its grace was over before it was saved: nothing is saved",
        ),
        (
            {"event": "failed", "cause": "first line\nsecond", "kind": "StageFailed", "traceback": "T"},
            RunFailed("first line\nsecond", "StageFailed", False, "T"),
            "first line",
        ),
        (
            {"event": "failed", "cause": "x", "kind": "InvalidData", "mistake": True},
            RunFailed("x", "InvalidData", True, ""),
            "x",
        ),
        ({"event": "trace saved", "steps": 3, "first": 5}, None, "trace.json has 3 steps, from step 5 on"),
        ({"event": "tracker", "detail": "dropped"}, None, "dropped"),
        ({"event": "of a later version", "cause": "why"}, None, "why"),
        ({}, None, ""),
    ],
    ids=lambda value: str(value.get("event")) if isinstance(value, dict) else "",
)
def test_an_event_means_and_says(event: dict[str, Any], means: object, says: str) -> None:
    assert happening(event) == means
    assert text(event) == says


def test_what_a_real_run_wrote_takes_a_job_from_its_start_to_its_end(tmp_path: Path) -> None:
    """Every line has a text and a time, and its event is possible in the job's state at that point."""
    train(classifier(tmp_path, stages=2), tmp_path / "run")
    state: Any = Starting(attempt=1)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    seen = []
    for event in events:
        assert text(event)
        assert seconds(event, 0.0) > 1.7e9
        assert {"time", "event", "attempt"}.isdisjoint(details(event))
        if (what := happening(event)) is not None:
            seen.append(type(state).__name__)
            state, _ = TRANSITIONS[type(state), type(what)](state, what)
    assert seen[-1] == Running.__name__
    assert state.name == "SUCCEEDED"


def test_a_time_is_seconds_utc_and_another_one_where_there_is_none() -> None:
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    assert seconds({"time": noon.isoformat()}, 5.0) == noon.timestamp()
    for broken in ({}, {"time": ""}, {"time": "yesterday"}, {"time": None}, {"time": 7}):
        assert seconds(broken, 5.0) == 5.0


def test_details_are_all_that_is_not_told_otherwise() -> None:
    assert details({"time": "t", **PREPARING}) == {"pid": 7, "host": "vm"}
