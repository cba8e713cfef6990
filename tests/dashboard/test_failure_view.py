"""The description of a failed job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.actors.worker_actor import log_entry
from cluster.dashboard.failure_view import failure_view, line_with
from cluster.dashboard.gantt import FAILED, marked, panel
from cluster.dashboard.schedule_view import Question, perform
from cluster.service.records import JobRecord
from coordinator.queue.job_states import Failed, Succeeded
from stages.actions import Action
from stages.orders import Failure
from tests.records import job_record


def record(*, step: int = 0, total: int | None = 690) -> JobRecord:
    state = Failed(attempt=1, cause="the loss became nan\nmore", kind="NonFinite")
    return job_record(state=state, step=step, steps_total=total, attempt=1)


@pytest.mark.parametrize(
    ("place", "step", "where", "log_text"),
    [
        (
            {"worker": 1, "step": 3, "action": "1F2", "evaluating": False},
            0,
            "In 1F2, on worker 1: step 3 of 690 (2 finished)",
            " in 1F2 of step 3: ",
        ),
        (
            {"worker": 0, "step": 3, "action": None, "evaluating": False},
            2,
            "On worker 0: step 3 of 690 (2 finished)",
            " of step 3: ",
        ),
        (
            {"worker": 0, "step": 23, "action": None, "evaluating": True},
            23,
            "On worker 0: in the evaluation after step 23 of 690",
            " of the evaluation after step 23: ",
        ),
        (
            {"worker": 0, "step": None, "action": None, "evaluating": False},
            0,
            "On worker 0: before the first step",
            " failed: ",
        ),
        (None, 40, "40 of 690 steps were finished", " failed: "),
    ],
)
def test_where_a_job_failed_is_said_with_its_step_and_worker(
    place: dict[str, Any] | None, step: int, where: str, log_text: str
) -> None:
    view = failure_view(record(step=step), {} if place is None else {"place": place})
    assert view is not None
    assert (view.where, view.log_text, view.cause) == (where, log_text, "the loss became nan\nmore")
    assert view.worker == (None if place is None else place["worker"])


def test_a_job_that_did_not_fail_has_no_failure() -> None:
    assert failure_view(replace(record(), state=Succeeded(attempt=1)), {}) is None


def test_the_line_is_the_last_one_with_the_text() -> None:
    assert line_with(["a failed: x", "b", "c failed: y", "d"], " failed: ") == 2
    assert line_with(["a"], " failed: ") is None
    assert line_with(["a"], "") is None


@pytest.mark.parametrize(("action", "n"), [("1F2", 1), ("1B2", 2), ("1I2", 1), ("1W2", 1), ("7F0", 0)])
def test_the_bars_of_the_failed_action_are_marked_and_no_others(action: str, n: int) -> None:
    picture = panel("p", perform(Question(stages=4, micro_batches=8)).spans(), 4)
    found = marked([picture], Action.parse(action))[0]
    failed = [bar for bar in found.bars if bar[8:] == [FAILED]]
    assert len(failed) == n
    assert all(bar[4:6] == [1, 2] for bar in failed)
    assert [bar[:8] for bar in found.bars] == [list(bar) for bar in picture.bars], "nothing else changed"


@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        ("non_finite", "failed in 1F2 of step 3: said"),
        ("timeout", "gave up in 1F2 of step 3: said; the cause may be in another worker's log"),
        ("closed", "gave up in 1F2 of step 3: said; the cause may be in another worker's log"),
    ],
)
def test_a_log_tells_a_cause_from_what_follows_it_and_the_page_finds_both(kind: Any, entry: str) -> None:
    failure = Failure(kind=kind, worker=1, step=3, action=Action.parse("1F2"), message="said")
    assert log_entry(failure) == entry
    view = failure_view(record(), {"place": {"worker": 1, "step": 3, "action": "1F2", "evaluating": False}})
    assert view is not None
    assert line_with([f"2026-01-01T00:00:00Z {entry}"], view.log_text) == 0
