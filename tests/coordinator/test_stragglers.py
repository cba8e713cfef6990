"""Which worker is a straggler, decided from the times that the workers report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.timing.stragglers import Stragglers, Straggling, computing_s
from coordinator.train.story import STRAGGLES, STRAGGLES_NO_MORE, straggler_text
from stages.ledger import BUBBLE_KINDS, STAGE_KINDS, WORKER_KINDS, Account

BATCH = 64
PACE = (0.2, 0.1, 0.3)  # seconds a step of each worker


def _account(seconds: float, stage: int = 0) -> Account:
    """Return the account of a step of 1 s, with so many seconds of computing."""
    row = [0.0] * len(STAGE_KINDS)
    row[0], row[1], row[BUBBLE_KINDS[0]] = seconds / 4, 3 * seconds / 4, 1 - seconds
    return Account(0.0, 1.0, {stage: tuple(row)}, (0.0,) * len(WORKER_KINDS))


def _run(
    steps: int,
    factor: Callable[[int, int], float],
    rows: Callable[[int], int] = lambda step: BATCH,
    planned: Sequence[float] = (),
) -> list[Straggling]:
    """Return what is told if worker w takes `factor(w, step)` times its time in a step, in proportion to its rows."""
    watch, found = Stragglers(len(PACE), BATCH, planned), []
    for step in range(1, steps + 1):
        share = rows(step) / BATCH
        accounts = [_account(pace * share * factor(w, step), w) for w, pace in enumerate(PACE)]
        found += watch.take(step, rows(step), 1.0, accounts)
    return found


def test_the_computing_of_a_worker_is_its_time_without_waits() -> None:
    assert computing_s(_account(0.3)) == pytest.approx(0.3)


def test_a_worker_that_becomes_slow_is_told_with_figures_and_again_when_it_is_over() -> None:
    slow, over = _run(300, lambda w, step: 2.5 if w == 1 and 100 <= step < 200 else 1.0)
    assert (slow.worker, slow.over, over.worker, over.over) == (1, False, 1, True)
    assert slow.factor == pytest.approx(2.5)
    assert slow.seconds == pytest.approx(0.25)
    assert slow.usual_s == over.usual_s == pytest.approx(0.1)
    assert slow.others == over.others == 1.0
    assert 100 <= slow.since <= 102
    assert slow.step <= 100 + 5 * 3 + 3
    assert 200 <= over.since <= 202
    assert over.seconds == pytest.approx(0.1)


def test_small_batches_are_compared_by_their_rows() -> None:
    assert _run(200, lambda w, step: 1.0, rows=lambda step: BATCH if step % 4 else 5) == []
    (slow,) = _run(
        200, lambda w, step: 2.0 if w == 2 and step > 100 else 1.0, rows=lambda step: BATCH if step % 4 else 5
    )
    assert slow.seconds == pytest.approx(2 * PACE[2]), "for a full batch"


@pytest.mark.parametrize(
    "factor",
    [
        lambda w, step: 4.0 if step > 100 else 1.0,
        lambda w, step: 4.0 if w == 0 and step % 10 == 0 else 1.0,
        lambda w, step: 1.0 if w == 0 or step < 100 else 0.3,
        lambda w, step: 5.0 if step < 10 else 1.0,
        lambda w, step: 1.4 if w == 0 and step > 100 else 1.0,
        lambda w, step: 5.0 if w == 1 and step < 13 else 1.0,
    ],
    ids=[
        "the whole machine is slow",
        "single slow steps",
        "the others become faster",
        "the first steps are slow",
        "less than the factor",
        "one begins slowly",
    ],
)
def test_no_worker_is_blamed_without_reason(factor: Callable[[int, int], float]) -> None:
    assert _run(300, factor) == []


@given(st.randoms(use_true_random=False), st.integers(100, 200))
@settings(deadline=None)
def test_a_machine_that_is_slow_as_a_whole_makes_no_straggler(random: Random, steps: int) -> None:
    load = [random.choice([1.0, 1.0, 2.0, 5.0, 20.0]) * random.uniform(0.9, 1.1) for _ in range(steps + 1)]
    assert _run(steps, lambda w, step: load[step]) == []


@given(st.lists(st.booleans(), min_size=100, max_size=200))
@settings(deadline=None)
def test_whoever_is_told_as_slow_is_told_as_over_before_he_is_told_again(slow: Sequence[bool]) -> None:
    found = _run(10 * len(slow), lambda w, step: 3.0 if w == 0 and slow[(step - 1) // 10] else 1.0)
    assert [one.over for one in found] == [bool(place % 2) for place in range(len(found))]
    assert {one.worker for one in found} <= {0}


def test_a_replaced_worker_begins_with_no_history_and_a_single_worker_is_compared_with_nobody() -> None:
    watch = Stragglers(2, BATCH)
    for step in range(1, 60):
        assert watch.take(step, BATCH, 1.0, [_account(0.1), _account(0.2)]) == []
    watch.forget(1)
    for step in range(60, 200):
        assert watch.take(step, BATCH, 1.0, [_account(0.1), _account(0.8)]) == [], "it is on a slower host now"
    alone = Stragglers(1, BATCH)
    for step in range(1, 200):
        assert alone.take(step, BATCH, 1.0, [_account(0.1 if step < 100 else 0.9)]) == []


PLAN = tuple(7 * pace for pace in PACE)
"""Wrong by a factor, but the same for all."""


def test_a_worker_that_is_slower_than_its_plan_from_its_first_step_on_is_told_with_figures() -> None:
    def factor(worker: int, step: int) -> float:
        return 2.5 if worker == 1 and step < 200 else 1.2

    assert _run(190, factor) == [], "its own history does not show it"
    slow, over = _run(300, factor, planned=PLAN)
    assert (slow.worker, slow.over, slow.by_plan) == (1, False, True)
    assert slow.seconds == pytest.approx(2.5 * PACE[1])
    assert slow.usual_s == pytest.approx(1.2 * PACE[1]), "at the pace of the others"
    assert slow.factor == pytest.approx(2.5 / 1.2)
    assert slow.step <= 10 * 3 + 3
    assert (over.worker, over.over, over.by_plan) == (1, True, True)
    assert 198 <= over.since <= 202


@pytest.mark.parametrize(
    ("factor", "planned"),
    [
        (lambda w, step: 20.0, PLAN),
        (lambda w, step: 1.9 if w == 1 else 1.0, PLAN),
        (lambda w, step: 6.0 if w == 1 else 1.0, tuple(pace / 30 for pace in PACE)),
        (lambda w, step: 6.0 if w == 1 and step % 20 else 1.0, ()),
    ],
    ids=["all are slow", "less than the factor", "plans of a few milliseconds", "no plan"],
)
def test_nobody_is_blamed_by_the_plan_without_reason(
    factor: Callable[[int, int], float], planned: Sequence[float]
) -> None:
    assert _run(200, factor, planned=planned) == []


def test_who_is_a_straggler_by_its_history_is_not_told_again_by_its_plan() -> None:
    slow, over = _run(400, lambda w, step: 5.0 if w == 0 and 100 <= step < 200 else 1.0, planned=PLAN)
    assert (slow.by_plan, over.by_plan, over.over) == (False, False, True)


def test_the_texts_have_the_figures() -> None:
    event = {"worker": 1, "host": "vm", "seconds": 0.25, "usual_s": 0.1, "factor": 2.5, "others": 1.0, "since": 100}
    assert straggler_text({"event": STRAGGLES, **event}) == (
        "worker 1 on vm is a straggler: since step 100 it computes 250 ms a step, 2.5 × its usual 100 ms; the others "
        "take 1.0 × theirs"
    )
    assert straggler_text({"event": STRAGGLES_NO_MORE, **event, "seconds": 0.1, "since": 200}) == (
        "worker 1 on vm is no straggler any more: since step 200 it computes 100 ms a step, usually 100 ms"
    )
    by_plan = {**event, "by_plan": True}
    assert straggler_text({"event": STRAGGLES, **by_plan}) == (
        "worker 1 on vm is a straggler: since step 100 it computes 250 ms a step, 2.5 × the 100 ms of its plan at the "
        "pace of the others"
    )
    assert straggler_text({"event": STRAGGLES_NO_MORE, **by_plan, "seconds": 0.11, "since": 200}) == (
        "worker 1 on vm is no straggler any more: since step 200 it computes 110 ms a step, by its plan 100 ms at the "
        "pace of the others"
    )
