"""The first cause among the failures of all workers."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from coordinator.schedules import build
from coordinator.train.failures import first_cause
from stages.actions import Action
from stages.errors import FailurePlace, JobFailed, NonFinite, StageFailed, WorkerHung
from stages.orders import Failure

PROGRAM = build("1f1b", n_stages=3, n_micro_batches=4)


def _failure(kind: Any, worker: int, action: str | None = None, **more: Any) -> Failure:
    at = None if action is None else Action.parse(action)
    return Failure(kind=kind, worker=worker, step=7, action=at, message=f"said by {worker}", **more)


@pytest.mark.parametrize(
    ("cause", "echoes", "error"),
    [
        (_failure("raised", 1, "1F2"), ("timeout", "closed"), StageFailed),
        (_failure("non_finite", 1, "1F2"), ("timeout", "closed"), NonFinite),
        (_failure("timeout", 1, "1F2"), ("closed", "closed"), WorkerHung),
    ],
    ids=["raised", "non-finite", "timeout"],
)
def test_an_echo_is_never_the_cause_in_whatever_order_they_come(
    cause: Failure, echoes: tuple[str, str], error: type[JobFailed]
) -> None:
    others = [_failure(echoes[0], 0, "0F3"), _failure(echoes[1], 2, "2F2")]
    for failures in permutations([cause, *others]):
        found = first_cause(failures, PROGRAM)
        assert type(found) is error
        assert "said by 1" in str(found)
        assert "said by 0" not in str(found)
        assert "said by 2" not in str(found)


def test_of_two_causes_the_one_that_was_given_first_is_told() -> None:
    first, second = _failure("raised", 2, "2B0"), _failure("non_finite", 0, "0F1")
    assert "said by 2" in str(first_cause([_failure("closed", 1), first, second], PROGRAM))
    assert "said by 0" in str(first_cause([_failure("closed", 1), second, first], PROGRAM))


def test_an_exception_is_told_with_where_it_was_its_traceback_and_a_picture() -> None:
    found = first_cause([_failure("raised", 1, "1B3", host="vm", traceback="Traceback: …")], PROGRAM)
    assert isinstance(found, StageFailed)
    assert str(found) == "stage 1, worker 1 on vm in 1B3 of step 7: said by 1"
    assert found.traceback.startswith("Traceback: …\nworker 0")
    (marked,) = (line for line in found.traceback.splitlines() if "<-- 1B3 failed here" in line)
    assert marked.startswith("worker 1")


def test_a_failure_outside_of_every_action_has_no_picture() -> None:
    found = first_cause([Failure(kind="raised", worker=2, step=None, action=None, message="no disk")], PROGRAM)
    assert isinstance(found, StageFailed)
    assert (str(found), found.traceback) == ("worker 2: no disk", "")


def test_an_action_that_the_program_does_not_have_is_named_without_a_picture() -> None:
    """For example in a step of fewer micro-batches than a full one."""
    found = first_cause([_failure("raised", 1, "1B9", traceback="T")], PROGRAM)
    assert isinstance(found, StageFailed)
    assert found.traceback == "T"
    assert "1B9" in str(found)


def test_what_is_not_finite_is_told_as_the_stage_said_it_with_the_place() -> None:
    found = first_cause([_failure("non_finite", 0, "0F1", host="vm")], PROGRAM)
    assert str(found) == "said by 0 [stage 0, worker 0 on vm in 0F1 of step 7]"


def test_where_there_are_only_echoes_that_is_said() -> None:
    found = first_cause([_failure("closed", 2, "2F0"), _failure("closed", 0)], PROGRAM)
    assert type(found) is WorkerHung
    assert str(found) == "stage 2, worker 2 in 2F0 of step 7 said by 2, and no worker reported a cause"


@pytest.mark.parametrize(
    ("failure", "place"),
    [
        (_failure("non_finite", 1, "1F2"), FailurePlace(1, 7, "1F2")),
        (_failure("raised", 2, "2F0", evaluating=True), FailurePlace(2, 7, None, evaluating=True)),
        (_failure("raised", 0), FailurePlace(0, 7)),
    ],
    ids=["in a step", "in an evaluation", "in an update"],
)
def test_the_error_says_where_the_job_failed(failure: Failure, place: FailurePlace) -> None:
    assert first_cause([_failure("closed", 0, "0F0"), failure], PROGRAM).place == place
