"""A request for a fault that cannot be is refused in one line that says what would be right."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.chaos.requests import FaultRequest, problem_of
from coordinator.schedules import build

ONE = build("1f1b", n_stages=4, n_micro_batches=8)
ZB = build("zb-h1", n_stages=2, n_micro_batches=2)


def problem(program: Any = ONE, done: int = 50, **entries: Any) -> str:
    request = FaultRequest(**{"id": "a", "what": "kill", "worker": 1, **entries})
    return problem_of(request, program, steps_done=done, steps_total=200)


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ({"worker": 4}, "worker 4: the job has workers 0 to 3"),
        ({"step": 201}, "step 201: the job has 200 steps"),
        ({"step": 50}, "step 50 is past: 50 steps are made"),
        ({"at": "2B5"}, "2B5 is an action of worker 2, not of worker 1"),
        (
            {"at": "1I5"},
            "1f1b has no 1I5, but 1F5, 1B5; worker 1 performs 1F0 1F1 1F2 1B0 1F3 1B1 1F4 1B2 … 1B7",
        ),
        ({"at": "1B8"}, "1f1b has no 1B8; worker 1 performs 1F0 1F1 1F2 1B0 1F3 1B1 1F4 1B2 … 1B7"),
        ({"program": ZB, "at": "1B1"}, "zb-h1 has no 1B1, but 1F1, 1I1, 1W1; worker 1 performs "),
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


@pytest.mark.parametrize("at", [None, "1F0", "1B7", "update", "evaluation", "checkpoint"])
@pytest.mark.parametrize("step", [None, 51, 200])
def test_what_is_possible_is_not(at: str | None, step: int | None) -> None:
    assert problem(at=at, step=step) == ""
