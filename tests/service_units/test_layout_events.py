"""The record of a job has the number of stages of its present layout."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from cluster.service import run_events
from cluster.service.changes import following
from cluster.service.records import EventRecord, JobRecord
from coordinator.queue.job_queue import Needs
from coordinator.queue.job_states import Queued

LAID_OUT = {
    "event": "laid out anew",
    "before": {"workers": 3, "stages": 3},
    "workers": 2,
    "stages": 2,
    "why": "node b7 (44e0722d) left",
}


def test_the_stages_of_a_job_are_those_of_its_present_layout() -> None:
    record = JobRecord(
        id="a",
        name="a",
        submission_id="a",
        priority=0,
        order=0,
        needs=Needs(workers=3, cpus=1, memory=0),
        state=Queued(),
        stages=4,
        submitted_at=0.0,
    )
    for seq, (kind, stages) in enumerate([("starting", 3), ("laid out anew", 2)], 1):
        entry: Any = SimpleNamespace(live_record=lambda now=record: now)
        event = EventRecord(seq=seq, time=0.0, kind=kind, attempt=1, text="", details={"stages": stages})
        record = following(entry, event)
        assert (record.stages, record.events) == (stages, seq)
    assert record.needs.workers == 3, "the queue keeps its room, so that it can grow back"


def test_the_change_is_told_in_one_line() -> None:
    text = "laid out anew: 3 workers → 2, 3 stages → 2, because node b7 (44e0722d) left"
    assert run_events.text(LAID_OUT) == text
    shared = {**LAID_OUT, "before": {"workers": 4, "stages": 4}, "workers": 1, "stages": 4}
    assert run_events.text(shared).startswith("laid out anew: 4 workers → 1, 4 stages, because")
