"""The first cause among the failures of all workers."""

from __future__ import annotations

from itertools import permutations
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.schedules import build
from coordinator.train.failures import Death, first_cause, first_of, is_echo, picture
from stages.actions import Action, Kind
from stages.channel import Tag
from stages.errors import FailurePlace, JobFailed, NonFinite, StageFailed, WorkerHung
from stages.orders import Failure
from stages.progress import Doing, Seen

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


def test_of_two_causes_the_one_of_the_earlier_place_is_told() -> None:
    first, second = _failure("raised", 0, "0F1"), _failure("non_finite", 2, "2B0")
    for failures in permutations([_failure("closed", 1), first, second]):
        assert "said by 0" in str(first_cause(failures, PROGRAM))
    earlier = Failure(kind="raised", worker=2, step=6, action=Action.parse("2B3"), message="said by 2")
    for failures in permutations([first, second, earlier]):
        assert "said by 2" in str(first_cause(failures, PROGRAM))


_actions = st.sampled_from([None, *(action for lane in PROGRAM.lanes for action in lane)])
_failures = st.builds(
    Failure,
    kind=st.sampled_from(["raised", "non_finite", "connection", "timeout", "closed"]),
    worker=st.integers(0, 2),
    step=st.integers(5, 8),
    action=_actions,
    message=st.just(""),
)
_deaths = st.builds(Death, st.integers(0, 2), st.sampled_from(["process", "memory", "node"]))


@given(st.lists(_failures | _deaths, min_size=1, max_size=5, unique=True), st.randoms(use_true_random=False))
def test_the_first_cause_is_the_same_in_whatever_order_failures_arrive(
    found: list[Failure | Death], random: Random
) -> None:
    first = first_of(found, PROGRAM)
    shuffled = list(found)
    random.shuffle(shuffled)
    assert first_of(shuffled, PROGRAM) == first
    if not all(map(is_echo, found)):
        assert not is_echo(first)
    nodes = [one for one in found if isinstance(one, Death) and one.loss == "node"]
    if nodes:
        assert first in nodes


@given(st.permutations([_failure("connection", 0, "0F3"), _failure("timeout", 2, "2F2"), Death(1, "process")]))
def test_a_worker_dies_its_neighbours_links_are_reset_and_a_third_times_out(found: list[Failure | Death]) -> None:
    assert first_of(found, PROGRAM) == Death(1, "process")


def test_the_drawing_shows_where_the_workers_were() -> None:
    waits = Seen(Doing.WAITING, 3, 7, Action.parse("0B1"), Tag(6, 0, Kind.BACKWARD_INPUT, 1), 1)
    computes = Seen(Doing.COMPUTING, 3, 7, Action.parse("2F1"))
    lines = picture(PROGRAM, 1, {0: waits, 1: computes._replace(action=Action.parse("1F3")), 2: computes}).splitlines()
    assert lines[0].endswith("<-- 0B1 waits for worker 1")
    assert lines[1].endswith("<-- 1F3 last seen here  <-- lost")
    assert lines[2].endswith("<-- 2F1 computing")
    assert picture(PROGRAM, 1, {}).splitlines()[1].endswith("<-- lost")


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
