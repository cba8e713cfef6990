from __future__ import annotations

import random
import time
from itertools import pairwise

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from coordinator.program.laws import needs, performed_as
from coordinator.program.replay import check, replay
from coordinator.schedules import build, restrict
from stages.actions import Action, Kind, Program
from stages.errors import InvalidSchedule
from tests.coordinator.programs import (
    B,
    F,
    I,
    W,
    anything_valid,
    built_in,
    program,
    really_performable,
    shuffled_program,
    words,
)

# the clock -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(built_in(6, 8) | anything_valid(), st.integers(0, 2**32))
def test_every_action_starts_as_soon_as_it_can(found: Program, seed: int) -> None:
    chance = random.Random(seed)
    seconds = {action: chance.choice([0.0, 0.5, 1.0, 2.0, 7.0]) for lane in found.lanes for action in lane}
    dry = replay(found, seconds)
    ends = {span.action: span.end for lane in dry.spans for span in lane}
    assert [[span.action for span in lane] for lane in dry.spans] == [list(lane) for lane in found.lanes]
    for lane in dry.spans:
        before = 0.0
        for action, start, end in lane:
            sources = [performed_as(needed, ends) for needed in needs(action, found.n_stages)]
            assert start == max([before, *(ends[source] for source in sources)])
            assert end == start + seconds[action]
            before = end
    assert dry.makespan == max(ends.values())
    assert dry.busy == tuple(sum(seconds[action] for action in lane) for lane in found.lanes)
    whole = dry.makespan * found.n_workers
    assert dry.bubble == pytest.approx(1 - sum(dry.busy) / whole if whole else 0.0, abs=1e-12)


def test_durations_by_kind_by_action_or_by_function_are_one() -> None:
    found = build("zb-h1", n_stages=3, n_micro_batches=4)
    by_kind = {F: 1.0, I: 2.0, W: 3.0, B: 5.0}
    by_action = {action: by_kind[action.kind] for lane in found.lanes for action in lane}
    assert replay(found, by_kind) == replay(found, by_action) == replay(found, lambda action: by_kind[action.kind])


def test_a_weight_gradient_takes_two_units_as_part_of_a_backward() -> None:
    assert replay(program("0F0 0B0")).makespan == replay(program("0F0 0I0 0W0")).makespan == 3


# what is kept ----------------------------------------------------------------------------------------------------


def kept_after(done: list[Action], stage: int, m: int, group: int) -> tuple[int, int]:
    """Return, computed anew, the micro-batches kept for the weight product, and for the input gradient, after
    `done`."""
    forward = {a.micro_batch for a in done if a.stage == stage and a.kind is F}
    inputs = {a.micro_batch for a in done if a.stage == stage and a.kind in (I, B)}
    weights = {a.micro_batch for a in done if a.stage == stage and a.kind in (W, B)}
    freed: set[int] = set()
    for first in range(0, m, group):
        members = set(range(first, min(first + group, m)))
        if not members <= weights:
            break
        freed |= members
    return len(forward - freed), len(forward - inputs)


@settings(deadline=None, max_examples=120)
@given(built_in(5, 7) | anything_valid(), st.integers(1, 9))
def test_peaks_are_those_of_a_naive_count(found: Program, group: int) -> None:
    dry = replay(found, weight_grad_group=group)
    for worker, lane in enumerate(found.lanes):
        own = [s for s, holder in enumerate(found.placement) if holder == worker]
        moments = [
            {s: kept_after(list(lane[:n]), s, found.n_micro_batches, group) for s in own} for n in range(len(lane) + 1)
        ]
        for s in own:
            assert dry.peak_alive[s] == max(moment[s][0] for moment in moments)
            assert dry.peak_saved_for_input[s] == max(moment[s][1] for moment in moments)
        assert dry.worker_peak_alive[worker] == max(sum(kept for kept, _ in moment.values()) for moment in moments)


def test_a_group_of_weight_gradients_keeps_its_micro_batches_until_its_last() -> None:
    one = build("1f1b", n_stages=4, n_micro_batches=8)
    assert [replay(one, weight_grad_group=g).peak_alive for g in (1, 2, 4, 8, 100)] == [
        (4, 3, 2, 1),
        (5, 4, 3, 2),
        (7, 6, 5, 4),
        (8, 8, 8, 8),
        (8, 8, 8, 8),
    ]
    with pytest.raises(ValueError, match="weight_grad_group is 0"):
        replay(one, weight_grad_group=0)


# broken programs: the law, and the place in the drawing ----------------------------------------------------------


def broken(found: Program) -> tuple[str, list[str]]:
    """Return the message (without the program's name) and the drawing; `replay` must raise the same error as
    `check`."""
    with pytest.raises(InvalidSchedule) as by_check:
        check(found)
    with pytest.raises(InvalidSchedule) as by_replay:
        replay(found)
    assert (str(by_replay.value), by_replay.value.grid) == (str(by_check.value), by_check.value.grid)
    return str(by_check.value).removeprefix("test: "), by_check.value.grid.splitlines()


def test_a_forward_is_missing() -> None:
    assert broken(program("0F0 0F1 0B0 0B1", "1F0 1B0 1B1")) == (
        "1F1 is missing on worker 1",
        [
            "worker 0  0F0 0F1 0B0 0B1",
            "worker 1  1F0 1B0 [1F1?] 1B1  <-- 1F1 is missing",
        ],
    )


def test_a_backward_is_missing() -> None:
    assert broken(program("0F0 0F1 0F2 0B0 0B2", "1F0 1B0 1F1 1B1 1F2 1B2")) == (
        "0B1 is missing on worker 0",
        [
            "worker 0  0F0 0F1 0F2 0B0 [0B1?] 0B2  <-- 0B1 is missing",
            "worker 1  1F0 1B0 1F1 1B1 1F2 1B2",
        ],
    )


def test_an_input_gradient_is_missing() -> None:
    assert broken(program("0F0 0F1 0I0 0W0 0W1")) == (
        "0I1 is missing on worker 0",
        ["worker 0  0F0 0F1 0I0 0W0 [0I1?] 0W1  <-- 0I1 is missing"],
    )


def test_a_weight_gradient_is_missing() -> None:
    assert broken(program("0F0 0F1 0I0 0I1 0W0")) == (
        "0W1 is missing on worker 0",
        ["worker 0  0F0 0F1 0I0 0I1 0W0 [0W1?]  <-- 0W1 is missing"],
    )


def test_a_whole_micro_batch_is_missing() -> None:
    assert broken(program("0F0 0B0 0F2 0B2")) == (
        "0F1 is missing on worker 0",
        ["worker 0  0F0 [0F1?] 0B0 0F2 0B2  <-- 0F1 is missing"],
    )


def test_a_stage_is_missing() -> None:
    assert broken(program("0F0 0B0", "2F0 2B0")) == (
        "1F0 is missing: no worker holds stage 1",
        [
            "worker 0  0F0 0B0",
            "worker 1  [2F0] 2B0  <-- 2F0 needs stages 0 … 2, but no worker holds stage 1",
        ],
    )


def test_a_worker_has_nothing_to_do() -> None:
    assert broken(program("0F0 0B0", "", "1F0 1B0")) == (
        "worker 1 has no action, so it holds no stage",
        [
            "worker 0  0F0 0B0",
            "worker 1    <-- has nothing to do",
            "worker 2  1F0 1B0",
        ],
    )


def test_an_action_is_doubled() -> None:
    assert broken(program("0F0 0F1 0F0 0B0 0B1")) == (
        "worker 0: 0F0 appears a second time",
        ["worker 0  [0F0] 0F1 [0F0] 0B0 0B1  <-- 0F0 here"],
    )


@pytest.mark.parametrize(
    ("lane", "extra"), [("0F0 [0I0] 0B0", "0I0"), ("0F0 0B0 [0W0]", "0W0"), ("0F0 [0I0] 0W0 0B0", "0I0")]
)
def test_a_whole_backward_stands_beside_a_half(lane: str, extra: str) -> None:
    assert broken(program(lane.replace("[", "").replace("]", ""))) == (
        f"worker 0: {extra} stands beside 0B0, which is I and W in one",
        [f"worker 0  {lane}  <-- {extra} here"],
    )


def test_a_weight_gradient_stands_before_its_input_gradient() -> None:
    assert broken(program("0F0 0W0 0I0")) == (
        "worker 0: 0W0 stands before 0I0, whose result it uses",
        ["worker 0  0F0 [0W0] 0I0  <-- 0W0 here"],
    )


def test_a_backward_stands_before_its_forward() -> None:
    assert broken(program("0F0 0B0", "1B0 1F0")) == (
        "worker 1: 1B0 stands before 1F0, whose result it uses",
        [
            "worker 0  0F0 0B0",
            "worker 1  [1B0] 1F0  <-- 1B0 here",
        ],
    )


def test_stages_of_one_worker_are_in_the_wrong_order() -> None:
    assert broken(program("1F0 0F0 1B0 0B0")) == (
        "worker 0: 1F0 stands before 0F0, whose result it uses",
        ["worker 0  [1F0] 0F0 1B0 0B0  <-- 1F0 here"],
    )


def test_a_stage_is_on_two_workers() -> None:
    assert broken(program("0F0 0F1 0B0", "1F0 1B0 1F1 1B1 0B1")) == (
        "worker 1: 0B1 puts stage 0 on a second worker, besides worker 0",
        [
            "worker 0  0F0 0F1 0B0",
            "worker 1  1F0 1B0 1F1 1B1 [0B1]  <-- 0B1 here",
        ],
    )


@pytest.mark.parametrize("outside", [Action(1, F, 0), Action(0, F, 1), Action(-1, B, 0), Action(0, B, -1)])
def test_an_index_is_outside(outside: Action) -> None:
    lane = (Action(0, F, 0), Action(0, B, 0), outside)
    assert broken(Program("test", 1, 1, (lane,))) == (
        f"worker 0: {outside} is outside 1 stages × 1 micro-batches",
        [f"worker 0  0F0 0B0 [{outside}]  <-- {outside} here"],
    )


@pytest.mark.parametrize("size", [(0, 1), (1, 0)])
def test_a_program_of_nothing(size: tuple[int, int]) -> None:
    message, _ = broken(Program("test", *size, ((Action(0, F, 0),),)))
    assert message == f"has {size[0]} stages × {size[1]} micro-batches on 1 workers, each must be at least 1"


def test_two_workers_wait_for_each_other() -> None:
    assert broken(program("0F0 0B0 0F1 0B1", "1F1 1B1 1F0 1B0")) == (
        "workers wait for each other in a circle: 0B0 waits for 1B0 behind 1F1, 1F1 waits for 0F1 behind 0B0",
        [
            "worker 0  0F0 [0B0] 0F1 0B1  <-- 0B0 stuck, waits for 1B0",
            "worker 1  [1F1] 1B1 1F0 1B0  <-- 1F1 stuck, waits for 0F1",
        ],
    )


def test_only_the_circle_is_named_not_those_who_wait_for_it() -> None:
    """Worker 0 is the first stuck worker, but not in the circle."""
    assert broken(program("0F0 0F1 0B0 0B1", "1F0 1B0 1F1 1B1", "2F1 2B1 2F0 2B0")) == (
        "workers wait for each other in a circle: 1B0 waits for 2B0 behind 2F1, 2F1 waits for 1F1 behind 1B0",
        [
            "worker 0  0F0 0F1 0B0 0B1",
            "worker 1  1F0 [1B0] 1F1 1B1  <-- 1B0 stuck, waits for 2B0",
            "worker 2  [2F1] 2B1 2F0 2B0  <-- 2F1 stuck, waits for 1F1",
        ],
    )


def test_a_long_lane_is_shown_around_the_place() -> None:
    lane = [f"0{kind}{j}" for j in range(40) for kind in "FB"]
    lane.remove("0B20")
    assert broken(program(" ".join(lane))) == (
        "0B20 is missing on worker 0",
        ["worker 0  … 0F18 0B18 0F19 0B19 0F20 [0B20?] 0F21 0B21 0F22 0B22 0F23 …  <-- 0B20 is missing"],
    )


def test_huge_numbers_are_answered_at_once() -> None:
    started = time.perf_counter()
    for lane in ("999999999F0", "0F999999999 0B999999999", "0F0 0B0 999999999F999999999"):
        message, drawing = broken(program(lane))
        assert "is missing" in message
        assert "<--" in drawing[0]
    assert time.perf_counter() - started < 1


# every other program is either valid or its fault is named -------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(anything_valid())
def test_whatever_can_be_performed_is_valid(found: Program) -> None:
    check(found)
    assert really_performable(found)


@settings(deadline=None, max_examples=400)
@given(built_in(5, 5) | anything_valid(), st.data())
def test_a_mutated_program_is_performable_or_named(found: Program, data: st.DataObject) -> None:
    lanes = [list(lane) for lane in found.lanes]
    for _ in range(data.draw(st.integers(1, 3))):
        _mutate(lanes, data)
    mutated = Program("mutated", found.n_stages, found.n_micro_batches, tuple(map(tuple, lanes)))
    try:
        check(mutated)
    except InvalidSchedule as error:
        named = error
    else:
        event("still valid")
        assert really_performable(mutated), words(mutated.lanes)
        return
    event("named")
    assert not really_performable(mutated), words(mutated.lanes)
    assert len(named.problems) == 1
    assert "<--" in named.grid
    assert len(named.grid.splitlines()) == mutated.n_workers


def _mutate(lanes: list[list[Action]], data: st.DataObject) -> None:
    full = [lane for lane in lanes if lane]
    if not full:
        return
    lane, other = data.draw(st.sampled_from(full)), data.draw(st.sampled_from(full))
    here, there = data.draw(st.integers(0, len(lane) - 1)), data.draw(st.integers(0, len(other) - 1))
    what = data.draw(st.sampled_from(["drop", "double", "swap", "move", "neighbours", "change"]))
    if what == "drop":
        del lane[here]
    elif what == "double":
        other.insert(there, lane[here])
    elif what == "swap":
        lane[here], other[there] = other[there], lane[here]
    elif what == "move":
        lane.insert(there % len(lane), lane.pop(here))
    elif what == "neighbours" and here:
        lane[here - 1], lane[here] = lane[here], lane[here - 1]
    elif what == "change":
        action = lane[here]
        kind = data.draw(st.sampled_from(list(Kind)))
        lane[here] = Action(action.stage + data.draw(st.integers(-1, 1)), kind, action.micro_batch)


def test_spans_of_a_lane_do_not_overlap() -> None:
    for lane in replay(build("zb-h1", n_stages=3, n_micro_batches=5)).spans:
        assert all(first.end <= second.start for first, second in pairwise(lane))


# fewer micro-batches ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(built_in() | anything_valid(), st.data())
def test_a_program_cut_short_stays_valid(whole: Program, data: st.DataObject) -> None:
    cut = restrict(whole, data.draw(st.integers(1, whole.n_micro_batches)))
    check(cut)
    assert really_performable(cut)
    assert cut.placement == whole.placement


def test_a_v_shaped_program_cut_short_stays_valid() -> None:
    for seed in range(20):
        whole = shuffled_program(4, 5, seed, placement=[0, 1, 1, 0])
        assert whole.placement == (0, 1, 1, 0)
        for m in range(1, 6):
            check(restrict(whole, m))


@settings(deadline=None, max_examples=50)
@given(built_in(most_stages=14, most_micro_batches=40))
def test_every_built_in_can_really_be_performed(found: Program) -> None:
    assert really_performable(found)
