"""Whether a run goes on after a failure: laws of the decision."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.train.recovery import Breakdown, Cause, GiveUp, Policy, Retry, decide, loss_of
from stages.errors import (
    FailurePlace,
    HostFailed,
    InvalidData,
    JobFailed,
    LinkLost,
    NonFinite,
    StageFailed,
    UnexpectedError,
    WorkerHung,
    WorkerLost,
)

breakdowns = st.builds(
    Breakdown,
    cause=st.sampled_from(Cause),
    worker=st.integers(0, 2),
    step=st.integers(0, 4),
    where=st.sampled_from(["", "1F2"]),
    message=st.sampled_from(["", "ValueError: a"]),
)
MACHINES = (Cause.NODE, Cause.CUT_OFF)
policies = st.builds(Policy, max_restarts=st.integers(0, 5), backoff_s=st.floats(0, 5))


@given(st.lists(breakdowns, max_size=40), policies)
def test_a_run_whose_machines_stay_never_tries_more_often_than_allowed(losses: list[Breakdown], policy: Policy) -> None:
    history: list[Breakdown] = []
    for loss in losses:
        if isinstance(decide(loss, history, policy), Retry):
            history.append(loss)
    assert sum(one.cause not in (*MACHINES, Cause.LINK) for one in history) <= policy.max_restarts
    if policy.max_restarts == 0:
        assert history == []


@given(breakdowns, st.lists(breakdowns, max_size=5), policies)
def test_the_same_failure_at_the_same_place_is_not_tried_twice(
    loss: Breakdown, history: list[Breakdown], policy: Policy
) -> None:
    again = decide(loss, [*history, loss], policy)
    assert isinstance(again, GiveUp) or loss.cause in MACHINES


@given(st.lists(breakdowns, max_size=8), breakdowns)
def test_losses_of_machines_never_end_a_run_that_may_recover(history: list[Breakdown], loss: Breakdown) -> None:
    for cause in MACHINES:
        lost = Breakdown(cause=cause, worker=loss.worker, step=loss.step)
        assert isinstance(decide(lost, history, Policy(max_restarts=1)), Retry)


@given(st.lists(breakdowns, max_size=8), st.integers(5, 9))
def test_a_lost_link_does_not_count_but_is_given_up_if_it_is_lost_again_at_the_same_step(
    history: list[Breakdown], step: int
) -> None:
    lost = Breakdown(cause=Cause.LINK, worker=1, step=step)
    assert isinstance(decide(lost, history, Policy(max_restarts=1)), Retry)
    assert isinstance(decide(lost, [*history, lost], Policy(max_restarts=1)), GiveUp)


def test_a_worker_that_is_killed_twice_at_the_same_step_on_request_is_replaced_twice() -> None:
    first = Breakdown(cause=Cause.PROCESS, worker=1, step=7, fault="a")
    again = dataclasses.replace(first, fault="b")
    assert isinstance(decide(again, [first], Policy()), Retry)
    assert isinstance(decide(again, [first, again], Policy()), GiveUp)
    assert isinstance(decide(again, [first], Policy(max_restarts=1)), GiveUp), "it counts"


def test_the_first_try_is_at_once_and_each_without_progress_waits_twice_as_long() -> None:
    policy, waits = Policy(max_restarts=100, backoff_s=3.0), []
    history: list[Breakdown] = []
    for n in range(8):
        loss = Breakdown(cause=Cause.EXCEPTION, worker=0, step=5, message=f"another one: {n}")
        decision = decide(loss, history, policy)
        assert isinstance(decision, Retry)
        waits.append(decision.after_s)
        history.append(loss)
    assert waits == [0, 3, 6, 12, 24, 48, 60, 60]
    after_progress = Breakdown(cause=Cause.EXCEPTION, worker=0, step=6, message="later")
    assert decide(after_progress, history, policy) == Retry(0.0)


def test_a_hopeless_failure_says_why_it_is_not_tried_again() -> None:
    loss = Breakdown(cause=Cause.PROCESS, worker=1, step=3)
    assert decide(loss, [loss], Policy()) == GiveUp("the same failure came again after the worker had been replaced")
    others = [Breakdown(cause=Cause.PROCESS, worker=1, step=step) for step in range(3)]
    assert decide(loss, others, Policy()) == GiveUp("recovery.max_restarts: 3 reached")
    assert decide(None, [], Policy()) == GiveUp()
    assert decide(loss, [], Policy(max_restarts=0)) == GiveUp()


def _with_place(error: JobFailed) -> JobFailed:
    error.place = FailurePlace(2, 7, "2F4")
    return error


def _mistake() -> StageFailed:
    error = StageFailed("worker 2: InvalidData: rows.csv: it is not the data that the job began with")
    error.mistake = True
    return error


@pytest.mark.parametrize(
    "error",
    [
        _with_place(NonFinite("the loss became nan")),
        _with_place(HostFailed("no space left on the device")),
        _with_place(UnexpectedError("KeyError: 3")),
        _with_place(_mistake()),
        StageFailed("who knows where"),
        InvalidData("rows.csv: no such file"),
        KeyError("x"),
    ],
)
def test_what_would_end_in_the_same_way_is_no_loss(error: Exception) -> None:
    assert loss_of(error, 6) is None


def test_losses_are_told_apart_by_what_was_lost_and_where() -> None:
    lost = WorkerLost("worker 2 died")
    lost.loss = "node"
    assert loss_of(_with_place(lost), 6) == Breakdown(cause=Cause.NODE, worker=2, step=6)
    hung = loss_of(_with_place(WorkerHung("worker 2 hangs: no answer within 4 s; last seen …")), 6)
    assert hung == Breakdown(cause=Cause.HANG, worker=2, step=6, where="2F4 7 False")
    assert loss_of(_with_place(LinkLost("the link between …")), 6) == Breakdown(cause=Cause.LINK, worker=2, step=6)
    cut_off = WorkerLost("worker 2 is cut off")
    cut_off.loss = "link"
    assert loss_of(_with_place(cut_off), 6) == Breakdown(cause=Cause.CUT_OFF, worker=2, step=6)
    raised = loss_of(_with_place(StageFailed("stage 2: OSError: gone\n  more")), 4)
    assert raised == Breakdown(
        cause=Cause.EXCEPTION, worker=2, step=7, where="2F4 7 False", message="stage 2: OSError: gone"
    )
    assert loss_of(_with_place(WorkerLost("")), 6, recovering=True) != loss_of(_with_place(WorkerLost("")), 6)
