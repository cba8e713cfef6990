"""A request for a fault that cannot be is refused in one line that says what would be right."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.chaos.requests import FaultRequest, problem_of
from coordinator.chaos.timetable import Timetable
from coordinator.plan.blueprint import make_blueprint
from tests.jobs import digits_job


def timetable(schedule: str = "1f1b", stages: int = 4) -> Timetable:
    """196 steps; 14 an epoch, of which the last has 3 rows and so 3 micro-batches; an evaluation after each epoch."""
    spec = digits_job(stages=stages, schedule=schedule).replace(training__epochs=14)
    return Timetable(make_blueprint(spec, 13 * 103 + 3), 13 * 103 + 3, 10)


ONE, ZB = timetable(), timetable("zb-h1", 2)


def problem(table: Timetable = ONE, done: int = 50, **entries: Any) -> str:
    request = FaultRequest(**{"id": "a", "what": "kill", "worker": 1, **entries})
    return problem_of(request, table, steps_done=done)


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ({"worker": 4}, "worker 4: the job has workers 0 to 3"),
        ({"step": 197}, "step 197: the job has 196 steps"),
        ({"step": 50}, "step 50 is past: 50 steps are made"),
        ({"at": "2B5"}, "2B5 is an action of worker 2, not of worker 1"),
        (
            {"at": "1I5"},
            "1f1b has no 1I5, but 1F5, 1B5; worker 1 performs 1F0 1F1 1F2 1B0 1F3 1B1 1F4 1B2 … 1B7",
        ),
        ({"at": "1B8"}, "1f1b has no 1B8; worker 1 performs 1F0 1F1 1F2 1B0 1F3 1B1 1F4 1B2 … 1B7"),
        ({"table": ZB, "at": "1B1"}, "zb-h1 has no 1B1, but 1F1, 1I1, 1W1; worker 1 performs "),
        ({"at": "1F3", "step": 56}, "1f1b has no 1F3; worker 1 performs 1F0 1F1 1F2 1B0 1B1 1B2"),
        ({"at": "evaluation", "step": 57}, "no evaluation follows step 57; the next one follows step 70"),
        ({"at": "evaluation", "done": 196}, "no evaluation is still to come"),
        ({"at": "lunch"}, "'lunch' is not an action; one looks like 2F0, 2B0, 2I0 or 2W0, or update, evaluation, "),
        (
            {"what": "kil"},
            "'kil' is no kind of fault; there are kill, stop, slow, partition, oom, corrupt, disk-full; ",
        ),
        ({"what": "raise"}, "'raise' is no kind of fault"),
        ({"worker": True}, "worker: got True, must be at least 0"),
        ({"seconds": float("nan")}, "a slow worker computes for at most 3600 s an action"),
    ],
)
def test_what_is_impossible_is_refused(entries: dict[str, Any], why: str) -> None:
    assert problem(**entries).startswith(why)


@pytest.mark.parametrize("at", [None, "1F0", "1B2", "update", "evaluation", "checkpoint"])
@pytest.mark.parametrize("step", [None, 70, 196])
def test_what_is_possible_is_not(at: str | None, step: int | None) -> None:
    assert problem(at=at, step=step) == ""
