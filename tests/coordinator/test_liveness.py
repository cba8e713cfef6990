"""Which worker hangs, decided from their answers; then with threads as workers that are slow, blocked or lose an
array."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import pytest

from cluster.data.sources import load_data
from coordinator.job.spec import JobSpec
from coordinator.plan.blueprint import make_blueprint
from coordinator.train.liveness import Liveness, State, activity_text, judge, moved
from coordinator.train.local import LocalWorkers, seen_in_one_process
from coordinator.train.rows import TrainedStep
from coordinator.train.trainer import Trainer
from stages.actions import Action, Kind
from stages.channel import Attendance, Tag, unattended_limit
from stages.errors import WorkerHung
from stages.faults import UNBLOCK
from stages.orders import Fault
from stages.progress import Doing, Progress, Seen
from tests.jobs import digits_job

LIMIT = 10.0


def _tag(stage: int, kind: Kind = Kind.FORWARD, round_: int = 3) -> Tag:
    return Tag(round_, stage, kind, 1)


def _computes(action: str = "0F1") -> Seen:
    return Seen(Doing.COMPUTING, 7, 2, Action.parse(action), round=3)


def _waits(action: str, tag: Tag, sender: int, sent: Sequence[Tag] = ()) -> Seen:
    return Seen(Doing.WAITING, 7, 2, Action.parse(action), tag, sender, round=3, sent=tuple(sent))


IDLE, PREPARING = Seen(Doing.IDLE, 7, 2, round=3), Seen(Doing.PREPARING)
_F1, _F2, _I0 = _waits("1F1", _tag(1), 0), _waits("2F1", _tag(2), 1), _waits("0B1", _tag(0, Kind.BACKWARD_INPUT), 1)

_SENDS = _F1._replace(doing=Doing.SENDING, tag=_tag(2), peer=2)


def _state(seen: Seen | None, still: float = 0.0, silent: float = 0.0) -> State:
    return State(seen=seen, still_for=still, silent_for=silent)


@pytest.mark.parametrize(
    "states",
    [
        [_state(_computes()), _state(_F1, still=900.0), _state(_F2, still=900.0)],
        [_state(_computes(), still=9.9), _state(_F1, still=900.0)],
        [_state(_I0, still=900.0), _state(_computes("1F1")), _state(_F2, still=900.0)],
        [_state(_F1, still=900.0), _state(PREPARING)],
        [_state(IDLE, still=900.0), _state(IDLE, still=900.0)],
        [_state(IDLE, still=900.0), _state(_F1, still=9.9)],
        [_state(None), _state(_F1, still=900.0)],
        [_state(_computes(), still=900.0), _state(_computes("1F1")), _state(_F2, still=900.0)],
        [_state(_computes(), still=9.0, silent=9.9), _state(_F1, still=900.0)],
    ],
    ids=[
        "all wait for one that computes",
        "one that computes has used no CPU for less than the limit",
        "a worker waits for a later stage",
        "one prepares",
        "no orders: the coordinator's turn",
        "the one that waits does not wait for long",
        "one has not answered yet",
        "one gets no CPU, but another makes progress",
        "one is silent for less than the limit: what the others wait for is unknown",
    ],
)
def test_nobody_hangs(states: list[State]) -> None:
    assert judge(states, LIMIT) is None


@pytest.mark.parametrize(
    ("states", "worker", "why"),
    [
        (
            [_state(_F1, still=11), _state(_computes("1B5"), still=11, silent=11)],
            1,
            "no answer within 10 s; its process does not answer, last seen in 1B5 of step 2; "
            "worker 0 is in 1F1 of step 2, waiting for the activations for 1F1 from worker 0",
        ),
        (
            [_state(IDLE), _state(None, silent=11)],
            1,
            "no answer within 10 s; its process does not answer; worker 0 is without orders",
        ),
        (
            [_state(_computes("0F1"), still=11), _state(_F1, still=11)],
            0,
            "no progress within 10 s; it is still in 0F1 of step 2, and uses no CPU; worker 1 is in 1F1",
        ),
        (
            [_state(_waits("0B1", _tag(0, Kind.BACKWARD_INPUT), 1, [_tag(1)]), still=11), _state(_F1, still=11)],
            1,
            "no progress of any worker within 10 s; it is in 1F1 of step 2, waiting for the activations for 1F1 from "
            "worker 0, which has sent them: they were lost on the way; worker 0 is in 0B1 of step 2, waiting for",
        ),
        ([_state(IDLE._replace(round=4), still=11), _state(_F1, still=11)], 1, "which has sent them: they were lost"),
        ([_state(IDLE, still=11), _state(_F1, still=11)], 1, "from worker 0, which is without orders"),
        ([_state(_I0, still=11), _state(_F1, still=11)], 0, "workers wait in a circle: 0 for 1 for 0"),
        (
            [_state(_I0, still=11), _state(_SENDS, still=11), _state(_F2, still=11)],
            1,
            "sending the activations for 2F1 to worker 2, which does not receive",
        ),
    ],
    ids=[
        "its process is stopped",
        "its process has never answered",
        "it is blocked in an action",
        "an array was lost",
        "an array was lost, and its sender has ended the step",
        "the sender has no orders",
        "a circle",
        "a link that does not receive",
    ],
)
def test_who_hangs_is_named_with_what_the_others_wait_for(states: list[State], worker: int, why: str) -> None:
    hang = judge(states, LIMIT)
    assert hang is not None
    assert hang.worker == worker
    assert why in hang.why


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (_computes(), _computes(), False),
        (_computes(), _computes()._replace(cpu_s=0.001), True),
        (_computes(), _computes()._replace(changes=8), True),
        (_F1, _F1._replace(cpu_s=5.0), False),
        (IDLE, IDLE._replace(cpu_s=5.0), False),
        (PREPARING, PREPARING, True),
    ],
)
def test_only_who_computes_makes_progress_by_using_the_cpu(before: Seen, after: Seen, expected: bool) -> None:
    assert moved(before, after) is expected


def test_what_it_does_is_told_with_the_step_or_the_evaluation_after_it() -> None:
    assert activity_text(_computes()) == "in 0F1 of step 2"
    assert activity_text(_computes()._replace(evaluating=True)) == "in 0F1 of the evaluation after step 2"


def test_times_count_from_the_first_question_that_found_no_change() -> None:
    """The coordinator may have been held up itself: time between two of its questions is no silence of a worker."""
    liveness = Liveness(2, LIMIT, every_s=5.0)
    blocked: Mapping[int, Seen] = {0: IDLE, 1: _F1}
    assert liveness.take(0.0, blocked) is None
    assert liveness.take(500.0, {0: IDLE._replace(changes=8), 1: _F1._replace(changes=8)}) is None
    assert liveness.take(509.0, {0: IDLE._replace(changes=8)}) is None, "silent from now on"
    assert liveness.take(518.0, {0: IDLE._replace(changes=8)}) is None
    hang = liveness.take(520.0, {0: IDLE._replace(changes=8)})
    assert hang is not None
    assert (hang.worker, "does not answer" in hang.why) == (1, True)
    assert liveness.last_seen(1) is not None


def test_a_worker_tells_what_it_does_and_what_it_has_sent() -> None:
    progress = Progress()
    assert progress.seen().doing is Doing.IDLE
    progress.begin()
    seen = [progress.seen()]
    progress.compute(2, Action.parse("1F1"))
    seen.append(progress.seen())
    progress.wait(2, Action.parse("1F1"), _tag(1), 0)
    seen.append(progress.seen())
    progress.send(2, Action.parse("1F1"), _tag(2), 2)
    progress.sent(_tag(2))
    seen.append(progress.seen())
    progress.rest(2, 4)
    seen.append(progress.seen())
    assert [s.doing.value for s in seen] == ["computing", "computing", "waiting", "sending", "idle"]
    assert [s.changes for s in seen] == [1, 2, 3, 4, 5]
    assert [s.cpu_s for s in seen] == sorted(s.cpu_s for s in seen)
    assert seen[0].cpu_s > 0
    assert not seen[2].has_sent(_tag(2))
    assert seen[3].has_sent(_tag(2))
    assert seen[4].has_sent(_tag(9)), "its step is done, so it has sent all of it"
    assert not seen[4].has_sent(_tag(2, round_=4))


def test_a_wait_ends_when_nobody_has_asked_for_the_limit() -> None:
    now = 100.0
    attendance = Attendance(30.0, lambda: now)
    assert attendance.left(since=100.0) == 30.0
    now = 125.0
    assert attendance.left(since=100.0) == 5.0
    attendance.asked()
    assert attendance.left(since=100.0) == 30.0
    now = 160.0
    assert attendance.left(since=100.0) == -5.0
    assert attendance.left(since=159.0) == 29.0, "a wait that has just begun"
    assert unattended_limit(60.0) == 300.0
    assert unattended_limit(3600.0) == 7200.0


# threads that are slow, lose an array, or are blocked --------------------------------------------------------------

What = Literal["slow", "lose", "block"]


@contextlib.contextmanager
def _workers(spec: JobSpec, faults: Mapping[int, Fault]) -> Iterator[Trainer]:
    data = load_data(spec)
    blueprint = make_blueprint(spec, len(data.train))
    workers = LocalWorkers(blueprint, train=data.train, faults=faults)
    with contextlib.closing(workers):
        yield Trainer(blueprint, workers, train_rows=len(data.train), max_steps=3)


def test_a_slow_pipeline_in_which_nobody_hangs_goes_on() -> None:
    """The last stage waits for the stages before it, each of which computes longer than the limit without progress.

    They are slow one after the other: worker w is slow before micro-batch w, when worker w - 1 is done.
    """
    spec = digits_job(stages=4).replace(resources__hang_timeout=1.0)
    faults = {w: Fault(step=1, action=f"{w}F{w}", what="slow", seconds=1.2) for w in range(3)}
    with _workers(spec, faults) as trainer:
        rows = [row for row in trainer.rows() if isinstance(row, TrainedStep)]
    assert len(rows) == 3
    waited = sum(rows[0].reports[3].account.stages[3][4:7])
    assert waited > 3 * 1.0, "the last stage waited for each longer than the limit"


def test_a_lost_array_is_found_and_named() -> None:
    spec = digits_job(stages=4).replace(resources__hang_timeout=0.8)
    lost = Fault(step=1, action="1F2", what="lose")
    with _workers(spec, {1: lost}) as trainer, pytest.raises(WorkerHung) as caught:
        list(trainer.rows())
    text = str(caught.value)
    assert text.startswith("worker 2 (stage 2) hangs: no progress of any worker within 0.8 s; it is in 2F2 of step 1, ")
    assert "waiting for the activations for 2F2 from worker 1, which has sent them: they were lost on the way" in text
    assert "; worker 3 is in 3F2 of step 1, waiting for the activations for 3F2 from worker 2" in text


@pytest.mark.parametrize(
    ("step", "hang_timeout", "within"), [(1, 0.8, "0.8"), (3, 600.0, r"(0\.[7-9]|[1-9])[\d.]*")], ids=["first", "later"]
)
def test_a_worker_that_is_blocked_in_an_action_is_found_and_named(step: int, hang_timeout: float, within: str) -> None:
    """In a later step it is known how long actions take, and the thread proves that it sleeps."""
    spec = digits_job(stages=3).replace(resources__hang_timeout=hang_timeout, training__clip_norm=1.0)
    UNBLOCK.clear()
    try:
        with _workers(spec, {1: Fault(step=step, action="1B1", what="block")}) as trainer:
            with pytest.raises(WorkerHung) as caught:
                list(trainer.rows())
            UNBLOCK.set()
    finally:
        UNBLOCK.set()
    text = str(caught.value)
    hangs = rf"worker 1 \(stage 1\) hangs: no progress within {within} s; it is still in 1B1 of step {step}, and uses"
    assert re.match(hangs, text)
    assert f"worker 0 is in 0B1 of step {step}, waiting for the gradients for 0I1 from worker 1" in text
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker-")]


def test_of_threads_of_one_process_nobody_sleeps_unless_all_do() -> None:
    """The one that is awake may have Python's lock, for which the others wait."""

    class Scripted(Progress):
        def __init__(self, asleep: bool) -> None:
            super().__init__()
            self._asleep = asleep

        def seen(self) -> Seen:
            return super().seen()._replace(asleep=self._asleep)

    for asleep, counts in (((True, True), True), ((True, False), False)):
        seen = seen_in_one_process([Scripted(one) for one in asleep])
        assert [seen[w].asleep for w in range(2)] == [counts] * 2
