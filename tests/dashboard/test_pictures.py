"""Pictures of steps, in parts if they are large."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from cluster.dashboard.gantt import BUBBLE, MOST_BARS, panel, windows
from cluster.dashboard.live import picture
from cluster.dashboard.schedule_view import Question, perform, picture_of
from stages.actions import Action, Kind


def timeline(n_micro_batches: int, *, predicted: float) -> dict[str, Any]:
    """Return a timeline of four workers: two without actions, and two that wait for half of each micro-batch's 100 µs.
    The prediction takes `predicted` times as long."""
    actions: list[list[Any]] = [
        [worker, f"{worker}{kind}{j}", 100 * j + start, 100 * j + end]
        for worker in range(2)
        for j in range(n_micro_batches)
        for kind, start, end in (("F", 0, 10), ("I", 10, 30), ("W", 80, 100))
    ]
    scaled = [[worker, text, start * predicted, end * predicted] for worker, text, start, end in actions]
    return {"step": 4, "workers": [{}] * 4, "actions": actions, "predicted": scaled}


def test_a_step_of_many_actions_is_drawn_in_pieces_and_told_in_full() -> None:
    """Only the first part was drawn, so that the drain was never visible."""
    found = picture(timeline(1000, predicted=0.5))
    assert found.summary.startswith("Step 4, 4 workers; measured: 100.00 ms, idle 75.0%, predicted")
    assert found.summary.endswith("dry run: 50.00 ms, idle 75.0%")
    assert found.windows[0][1] == pytest.approx(25)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(found.windows))
    drawn: list[set[tuple[float, ...]]] = [set(), set()]
    for place in range(len(found.windows)):
        for p, seen in zip(found.window(place), drawn, strict=True):
            bars = [bar for bar in p.bars if bar[3] != BUBBLE]
            assert len(bars) <= MOST_BARS + 2
            assert all(bar[1] < p.until and bar[2] > p.since for bar in bars)
            assert all(p.since <= bar[1] <= bar[2] <= p.until for bar in p.bars if bar[3] == BUBBLE)
            seen |= {(bar[0], bar[3], bar[5]) for bar in bars}
    assert [len(seen) for seen in drawn] == [6000, 6000], "every action of both is in one of the parts"
    last = found.window(len(found.windows) - 1)[0]
    assert last.until == pytest.approx(100), "the drain is in the last part"
    assert found.window_of(Action(1, Kind.FORWARD, 999)) == len(found.windows) - 1
    assert found.window_of(Action(1, Kind.FORWARD, 0)) == 0


def test_a_step_of_few_actions_is_drawn_in_full() -> None:
    found = picture(timeline(100, predicted=2))
    assert len(found.windows) == 1
    assert [len([bar for bar in p.bars if bar[3] != BUBBLE]) for p in found.panels] == [600, 600]
    assert [(p.end, p.until) for p in found.panels] == [(10, 10), (20, 20)]


def test_actions_that_all_begin_at_once_are_one_piece() -> None:
    many = [(0, Action(0, Kind.FORWARD, j), 0.0, 1.0) for j in range(50)]
    assert windows([many], 10) == [(0.0, float("inf"))]


@pytest.mark.parametrize("schedule", ["1f1b", "zb-h1"])
def test_a_schedule_of_any_size_has_figures_and_a_picture(schedule: str) -> None:
    """32 stages × 128 micro-batches were refused as too many actions."""
    question = Question(schedule, 32, 128)
    assert question.problems() == []
    found = picture_of("", perform(question))
    assert len(found.windows) > 3
    assert sum(len([b for b in found.window(i)[0].bars if b[3] != BUBBLE]) for i in range(len(found.windows))) >= 12288


def test_workers_that_do_the_same_have_their_own_bubbles() -> None:
    found = panel("", [], 3)
    assert found.bars == []
    late = [(2, Action(0, Kind.FORWARD, 0), 1.0, 2.0)]
    bubbles = [tuple(bar[:3]) for bar in panel("", late, 3).bars if bar[3] == BUBBLE]
    assert sorted(bubbles) == [(0, 0, 2), (1, 0, 2), (2, 0, 1)]
