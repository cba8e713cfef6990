"""What a job of the service has read, as commands show it."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.cli.describe import _plan, _warnings
from cluster.cli.follow import _StateNotes
from cluster.cli.progress import Header, RunDisplay
from cluster.client.job import JobUpdate
from cluster.client.messages import JobEvent
from cluster.service.run_events import text

READ = "inputs (1): a · target: y (numbers) · 8 rows train, 2 validation"
STARTING = {"event": "starting", "workers": 2, "stages": 2, "schedule": "1f1b", "micro_batches": 1, "steps_total": 3}


def event(kind: str, attempt: int, **details: Any) -> JobEvent:
    said = text({"event": kind, **details})
    return JobEvent(0, datetime.now(UTC), kind, attempt, said, details)


def events(attempts: int) -> list[JobEvent]:
    """Return the events of a job that began so many times."""
    found = []
    for attempt in range(1, attempts + 1):
        found += [event("data", attempt, detail=READ), event("data", attempt, detail="left out (1): id")]
        found.append(event("starting", attempt, **{k: v for k, v in STARTING.items() if k != "event"}))
    return found


def test_the_plan_of_describe_begins_with_what_was_read_in_the_last_attempt() -> None:
    plan = _plan(events(attempts=2))
    assert next(iter(plan)) == "data"
    assert plan["data"] == [READ, "left out (1): id"]
    assert plan["stages"] == 2
    assert _plan([]) == {}


def test_submit_says_once_what_was_read(capsys: pytest.CaptureFixture[str]) -> None:
    notes = _StateNotes(RunDisplay(Header("d", 3)))
    job = cast(Any, SimpleNamespace(steps_total=3, state="RUNNING", reason="", done=False))
    for one in events(attempts=2):
        notes.update(JobUpdate(job, (one,), (), has_state=False))
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line in (READ, "left out (1): id")] == [READ, "left out (1): id"]


def test_submit_and_describe_say_each_warning_once(capsys: pytest.CaptureFixture[str]) -> None:
    both = [event("warning", attempt, code="dead_units", detail="units are dead") for attempt in (1, 2)]
    notes = _StateNotes(RunDisplay(Header("d", 3)))
    job = cast(Any, SimpleNamespace(steps_total=3, state="RUNNING", reason="", done=False))
    for one in both:
        notes.update(JobUpdate(job, (one,), (), has_state=False))
    assert capsys.readouterr().err.splitlines().count("warning: units are dead") == 1
    assert [one.attempt for one in _warnings([*events(attempts=2), *both])] == [2]
