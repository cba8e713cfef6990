"""The ledger's law: the booked times add up to the time that passed, whatever is booked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import ledger as ledger_module
from stages.actions import Action, Kind
from stages.ledger import (
    EVALUATION,
    FORWARD,
    OTHER,
    SEND,
    STAGE_KINDS,
    UPDATE,
    WAIT_DRAIN,
    WAIT_STEADY,
    WAIT_WARMUP,
    WORKER_KINDS,
    Ledger,
    wait_kinds,
)

_BOOKINGS = st.lists(
    st.tuples(
        st.sampled_from(["stage", "action", "worker", "open"]),
        st.integers(0, len(STAGE_KINDS) - 1),
        st.integers(0, 2),
        st.integers(1, 1000),
    ),
    max_size=30,
)


class _Hand:
    """A clock that tests move by binary fractions of a second, so that sums are exact."""

    now = 1.0

    def __call__(self) -> float:
        return self.now


@given(intervals=st.lists(_BOOKINGS, min_size=1, max_size=4))
def test_every_interval_sums_to_the_time_that_passed(intervals: list[list[tuple[str, int, int, int]]]) -> None:
    hand = _Hand()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_module, "_now", hand)
        ledger = Ledger((0, 2))
        ledger.open()
        ended = hand.now
        for bookings in intervals:
            for what, kind, place, ticks in bookings:
                hand.now += ticks / 1024
                stage = 2 * (place % 2)
                if what == "stage":
                    ledger.book(stage, kind)
                elif what == "action":
                    ledger.book_action(stage, kind % 3, place)
                elif what == "worker":
                    ledger.book_worker(kind % len(WORKER_KINDS))
                else:
                    ledger.open()
            account = ledger.take()
            assert account.began == ended
            assert account.ended == hand.now
            booked = sum(account.worker) + sum(sum(row) for row in account.stages.values())
            assert booked == account.ended - account.began
            ended = account.ended


def test_time_goes_to_what_is_named_and_the_timeline_has_the_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    hand = _Hand()
    monkeypatch.setattr(ledger_module, "_now", hand)
    ledger = Ledger((1,))
    hand.now = 5.0
    ledger.open()  # time before the first order does not count
    ledger.trace = True
    bookings: list[tuple[float, Callable[[], None]]] = [
        (0.25, lambda: ledger.book_worker(OTHER)),
        (2.0, lambda: ledger.book(1, WAIT_WARMUP)),
        (1.0, lambda: ledger.book_action(1, FORWARD, 3)),
        (0.5, lambda: ledger.book(1, SEND)),
        (4.0, lambda: ledger.book_worker(EVALUATION)),
        (0.125, lambda: ledger.book(1, UPDATE)),
    ]
    for seconds, book in bookings:
        hand.now += seconds
        book()
    account = ledger.take()
    assert account.stages == {1: (1.0, 0.0, 0.0, 0.125, 2.0, 0.0, 0.0, 0.5)}
    assert account.worker == (0.0, 0.0, 4.0, 0.25)
    assert ledger.timeline == [(Action(1, Kind.FORWARD, 3), 7.25, 8.25)]
    assert sum(sum(row) for row in ledger.take().stages.values()) == 0.0


@pytest.mark.parametrize(
    ("lane", "waits"),
    [
        ("0F0 0F1 0F2 0B0 0B1 0B2", "wwwwdd"),  # GPipe
        ("0F0 0F1 0B0 0F2 0B1 0B2", "wwwsdd"),  # 1F1B
        ("1F0 1B0 1F1 1B1 1F2 1B2", "wwsssd"),  # 1F1B, last stage
        ("0F0 0I0 0F1 0W0 0I1 0W1", "wwsddd"),  # I and W apart
        ("0F0 0F1", "ww"),  # an evaluation
    ],
)
def test_waits_are_told_apart_by_their_place_in_the_lane(lane: str, waits: str) -> None:
    letters = {WAIT_WARMUP: "w", WAIT_STEADY: "s", WAIT_DRAIN: "d"}
    actions = tuple(Action.parse(text) for text in lane.split())
    assert "".join(letters[kind] for kind in wait_kinds(actions)) == waits
