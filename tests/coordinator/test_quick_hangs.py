"""A hang that is proved is found soon; what only looks like one is left alone until the long limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.train.liveness import Hang, Liveness, Sight, moved
from coordinator.train.pace import ActionPace
from stages.actions import Action, Kind
from stages.channel import Tag
from stages.ledger import STAGE_KINDS, UPDATE, WORKER_KINDS, Account
from stages.orders import StepReport, Updated
from stages.progress import Doing, LinkSeen, Progress, Seen, thread_state

LIMIT, SURE, EVERY = 60.0, 2.0, 0.25


def _seen(doing: Doing, action: str = "1F1", **more: object) -> Seen:
    seen = Seen(doing, 7, 2, Action.parse(action), round=3, asleep=True)
    return seen._replace(**more)  # type: ignore[arg-type]


def _waits(action: str, sender: int, **more: object) -> Seen:
    parsed = Action.parse(action)
    return _seen(Doing.WAITING, action, tag=Tag(3, parsed.stage, Kind.FORWARD, 1), peer=sender, **more)


COMPUTES = _seen(Doing.COMPUTING, "0F1", asleep=False)
BLOCKED = _seen(Doing.COMPUTING, "0F1")
WAITS = _waits("1F1", 0)
SENT = (Tag(3, 1, Kind.FORWARD, 1),)
IDLE = Seen(Doing.IDLE, 7, 2, round=3, asleep=True)


def _found(
    answers: Sequence[Seen | None], *, sight: Sight = Sight.UNKNOWN, seconds: float = LIMIT - 1, steps: bool = False
) -> tuple[float, Hang] | None:
    """Return after how many seconds a hang is found if all questions are answered in the same way; None if none is.
    With `steps`, the first worker's CPU time grows."""
    liveness = Liveness(len(answers), LIMIT, SURE, EVERY)
    given_: dict[int, Seen] = {w: seen for w, seen in enumerate(answers) if seen is not None}
    for n in range(int(seconds / EVERY)):
        if steps:
            given_[0] = given_[0]._replace(cpu_s=float(n))
        silent = {w: sight for w in range(len(answers)) if w not in given_}
        hang = liveness.take(1000 + n * EVERY, given_, silent)
        if hang is not None:
            return n * EVERY, hang
    return None


@pytest.mark.parametrize(
    ("answers", "sight", "why"),
    [
        ([BLOCKED, WAITS], Sight.UNKNOWN, "no progress within 2 s; it is still in 0F1 of step 2, and uses no CPU"),
        ([BLOCKED, _seen(Doing.STORING)], Sight.UNKNOWN, "it is still in 0F1"),
        ([None, WAITS], Sight.STOPPED, "no answer within 2 s; its process is stopped; worker 1 is in 1F1"),
        ([None, WAITS], Sight.UNREACHABLE, "no answer within 2 s; its host cannot be reached"),
        (
            [_waits("0F1", 1, sent=SENT), WAITS],
            Sight.UNKNOWN,
            "no progress of any worker within 2 s; it is in 1F1 of step 2, waiting for the activations for 1F1 from "
            "worker 0, which has sent them: they were lost on the way",
        ),
        ([IDLE._replace(round=4), WAITS], Sight.UNKNOWN, "which has sent them: they were lost on the way"),
    ],
    ids=["blocked", "blocked while another reads a file", "stopped", "unreachable", "lost", "lost, sender has ended"],
)
def test_a_proved_hang_is_found_within_the_short_limit(answers: Sequence[Seen | None], sight: Sight, why: str) -> None:
    found = _found(answers, sight=sight)
    assert found is not None
    after, hang = found
    assert SURE < after <= SURE + 2 * EVERY
    assert why in hang.why


def test_a_blocked_worker_is_found_while_others_go_on() -> None:
    found = _found([COMPUTES, BLOCKED], steps=True)
    assert found is not None
    assert (found[1].worker, found[0] <= SURE + 2 * EVERY) == (1, True)


@pytest.mark.parametrize(
    "answers",
    [
        [_seen(Doing.COMPUTING, asleep=False), WAITS],
        [_seen(Doing.STORING), WAITS],
        [None, WAITS],
        [IDLE, WAITS],
        [_waits("0F1", 1, sent=SENT), WAITS._replace(asleep=False)],
        [Seen(Doing.PREPARING), WAITS],
    ],
    ids=[
        "it gets no CPU: it waits for one, or for memory",
        "it reads a file",
        "it does not answer, and nobody knows why",
        "it has no orders yet",
        "its array has come, but it gets no CPU to take it",
        "it prepares",
    ],
)
def test_what_only_looks_like_a_hang_is_left_alone(answers: Sequence[Seen | None]) -> None:
    assert _found(answers) is None


def test_an_endless_loop_that_uses_the_cpu_is_no_hang() -> None:
    assert _found([COMPUTES, WAITS], seconds=10 * LIMIT, steps=True) is None


def test_a_waiting_thread_that_wakes_up_now_and_then_still_sleeps() -> None:
    liveness = Liveness(2, LIMIT, SURE, EVERY)
    hang, n = None, 0
    while hang is None and n < 100:
        answers = {0: _waits("0F1", 1, sent=SENT), 1: WAITS._replace(asleep=n % 3 > 0)}
        hang, n = liveness.take(n * EVERY, answers), n + 1
    assert hang is not None
    assert n * EVERY < SURE + 1


@pytest.mark.parametrize("jump", [3.0, 1e6])
def test_a_jump_of_the_clock_or_a_suspended_coordinator_is_no_silence(jump: float) -> None:
    liveness = Liveness(2, LIMIT, SURE, EVERY)
    now = 0.0
    for answers in ({0: COMPUTES, 1: WAITS}, {1: WAITS}):
        assert liveness.take(now, answers, {0: Sight.STOPPED}) is None
        now += EVERY
    now += jump
    assert liveness.take(now, {1: WAITS}, {0: Sight.STOPPED}) is None
    assert liveness.take(now + EVERY, {0: COMPUTES, 1: WAITS}) is None


# links between hosts -----------------------------------------------------------------------------------------------


def _sends(acknowledged: int | None, *, waiting: bool) -> Seen:
    return _waits("0F1", 1, sent=SENT, links=(LinkSeen(1, acknowledged, waiting=waiting),))


@pytest.mark.parametrize(
    ("link", "text"),
    [((500, True), "no byte of it arrives"), ((None, False), "their connection is closed")],
    ids=["a cut cable", "a closed connection"],
)
def test_a_lost_link_is_told_from_a_hang(link: tuple[int | None, bool], text: str) -> None:
    found = _found([_sends(link[0], waiting=link[1]), WAITS])
    assert found is not None
    after, hang = found
    assert hang.link == (0, 1), "the sender first"
    assert text in hang.why
    assert after <= SURE + 2 * EVERY


def test_what_arrived_but_was_never_received_is_no_lost_link() -> None:
    found = _found([_sends(500, waiting=False), WAITS])
    assert found is not None
    assert found[1].link is None
    assert "lost on the way" in found[1].why


def test_a_slow_link_on_which_bytes_arrive_is_no_lost_one() -> None:
    liveness = Liveness(2, LIMIT, SURE, EVERY)
    for n in range(int(2 * LIMIT / EVERY)):
        answers: Mapping[int, Seen] = {0: _sends(500 + n // 4, waiting=True), 1: WAITS}
        assert liveness.take(n * EVERY, answers) is None
    assert moved(_sends(1, waiting=True), _sends(2, waiting=True))


# laws --------------------------------------------------------------------------------------------------------------

_doings = st.sampled_from([COMPUTES, _seen(Doing.STORING), WAITS, IDLE, Seen(Doing.PREPARING), None])


@given(st.lists(st.lists(_doings, min_size=3, max_size=3), min_size=1, max_size=40), st.integers(1, 6))
def test_whoever_changes_or_computes_in_time_is_never_blamed(looks: Sequence[Sequence[Seen | None]], same: int) -> None:
    """Every worker's activity changes, or its CPU time grows, at least every `same` looks, which last less than the
    short limit."""
    liveness, changes = Liveness(3, LIMIT, SURE, EVERY), 0
    for n, look in enumerate(looks):
        for repeated in range(same):
            changes += repeated == 0
            answers = {
                w: seen._replace(changes=changes, peer=(w + 1) % 3 if seen.peer is not None else None)
                for w, seen in enumerate(look)
                if seen is not None
            }
            assert liveness.take((n * same + repeated) * EVERY, answers) is None


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=200))
def test_the_limit_follows_the_slowest_of_the_last_actions(seconds: list[float]) -> None:
    pace = ActionPace()
    assert pace.limit(60.0) == 60.0, "before the first step"
    for one in seconds:
        pace.take([_report(one), Updated()])
    slowest = max(seconds[-64:])
    assert pace.limit(1e9) == pytest.approx(3 * slowest + 0.75)
    assert pace.limit(0.5) == 0.5, "hang_timeout is the most"


def _report(action_s: float, update_s: float = 0.0) -> StepReport:
    row = [0.0] * len(STAGE_KINDS)
    row[UPDATE] = update_s
    account = Account(0.0, 1.0, {0: tuple(row)}, (0.0,) * len(WORKER_KINDS))
    timeline = ((Action.parse("0F0"), 5.0, 5.0 + action_s), (Action.parse("0B0"), 5.0, 5.0))
    return StepReport(1, 1, None, None, None, {}, account, {}, {}, timeline)


def test_a_slow_update_counts_as_an_action_and_steps_without_a_timeline_do_not() -> None:
    pace = ActionPace()
    pace.take([_report(0.1, update_s=2.0)])
    pace.take([_report(7.0)._replace(timeline=())])
    assert pace.slowest == 2.0


def test_the_system_tells_a_thread_that_sleeps_from_one_that_runs() -> None:
    progress = Progress()
    progress.begin()
    seen = progress.seen()
    assert seen.thread is not None
    assert not seen.asleep, "this thread asks about itself, so it runs"
    assert thread_state(seen.thread) == "R"
    assert thread_state(2**30) == ""


def test_a_thread_that_waits_for_another_one_of_its_process_that_computes_is_not_asleep() -> None:
    progress, begun, end = Progress(), threading.Event(), threading.Event()

    def work() -> None:
        progress.begin()
        begun.set()
        end.wait()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert begun.wait(60)
        assert not progress.seen().asleep, "nothing is known yet"
        deadline = time.monotonic() + 60
        while thread_state(thread.native_id or 0) != "S":
            assert time.monotonic() < deadline
            thread.join(0.01)
        now, used = time.monotonic(), time.process_time()
        progress._asked = now - 1.0, used - 1.0
        assert not progress.seen().asleep, "another thread has worked all the time"
        progress._asked = now - 1000.0, used
        assert progress.seen().asleep
    finally:
        end.set()
        thread.join()
