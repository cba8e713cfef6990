"""The figures of all schedules side by side: for the same network on the same workers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.job.schedule_names import SCHEDULES
from coordinator.timing.lab import LeftOut, Row, ScheduleComparison, best, compare, shortest_text
from stages.errors import UserMistake


def rows(question: ScheduleComparison) -> dict[str, Row]:
    return {row.schedule: row for row in compare(question) if isinstance(row, Row)}


def test_eight_workers_and_32_micro_batches() -> None:
    found = rows(ScheduleComparison(n_workers=8, n_micro_batches=32))
    assert {name: (row.step, row.kept, row.messages) for name, row in found.items()} == {
        "gpipe": (110.0, 32.0, 448),
        "1f1b": (110.0, 8.0, 448),
        "interleaved-1f1b": (103.0, 11.5, 960),
        "looped-bfs": (103.0, 32.0, 960),
        "zb-h1": (103.0, 8.0, 448),
        "zb-h2": (103.0, 15.0, 448),
        "zbv": (99.5, 8.0, 896),
        "v-half": (104.5, 5.0, 896),
        "v-min": (109.5, 4.0, 896),
        "dualpipev": (99.5, 8.5, 896),
    }
    assert all(row.bubble == pytest.approx(1 - 96 / row.step) for row in found.values())


@settings(max_examples=40, deadline=None)
@given(
    p=st.integers(1, 6),
    m=st.integers(1, 14),
    times=st.tuples(*[st.sampled_from([0.5, 1.0, 2.0])] * 3),
    latency=st.sampled_from([0.0, 0.5, 4.0]),
)
def test_every_schedule_computes_the_same_and_takes_longer_with_latency(
    p: int, m: int, times: tuple[float, float, float], latency: float
) -> None:
    quick = rows(ScheduleComparison(n_workers=p, n_micro_batches=m, times=times))
    for name, row in rows(ScheduleComparison(n_workers=p, n_micro_batches=m, times=times, latency=latency)).items():
        assert row.timed.busy == pytest.approx([m * sum(times)] * p)
        assert row.step >= max(quick[name].step, m * sum(times), p * times[0] + 2 * (p - 1) * latency)


def test_latency_changes_the_order() -> None:
    """zbv sends twice as much as zb-h1; with slow links it is no longer the faster of the two."""
    near, far = (rows(ScheduleComparison(n_workers=8, n_micro_batches=16, latency=latency)) for latency in (0.0, 2.0))
    assert near["zbv"].step < near["zb-h1"].step
    assert far["zbv"].step > far["zb-h1"].step


def test_a_schedule_that_cannot_be_built_says_why() -> None:
    (row,) = compare(ScheduleComparison(n_workers=4, n_micro_batches=7), ["dualpipev"])
    assert row == LeftOut("dualpipev", "needs at least 8 micro-batches")
    assert best([row]) is None


def test_the_memory_decides_which_is_the_shortest() -> None:
    def chosen(memory: float | None) -> str | None:
        found = best(compare(ScheduleComparison(n_workers=8, n_micro_batches=32, memory=memory)))
        return None if found is None else found.schedule

    assert [chosen(memory) for memory in (None, 8, 7.5, 5, 4)] == ["zbv", "zbv", "v-half", "v-half", "v-min"]


def test_a_memory_that_nothing_meets_tells_the_least() -> None:
    with pytest.raises(UserMistake) as caught:
        compare(ScheduleComparison(n_workers=8, n_micro_batches=32, memory=3))
    assert caught.value.problems == (
        "memory: 3 micro-batches a worker, but no schedule keeps so few; the least is 4, of v-min",
    )


def test_all_schedules_are_compared() -> None:
    assert [row.schedule for row in compare(ScheduleComparison(n_workers=2, n_micro_batches=4))] == list(SCHEDULES)


def test_of_equal_steps_the_one_that_keeps_least_and_then_the_simplest_comes_first() -> None:
    """It ranked by the step alone, whose last bits say nothing."""
    question = ScheduleComparison(n_workers=4, n_micro_batches=8, times=(0.1, 0.2, 0.3))
    rows = compare(question, ["gpipe", "1f1b"])
    assert all(isinstance(row, Row) for row in rows)
    found = best(rows)
    assert found is not None
    assert found.schedule == "1f1b"
    assert shortest_text(question, rows) == (
        f"shortest step: 1f1b, {found.step_text()} (as short, but keep or send no less: gpipe)"
    )
    alone = compare(ScheduleComparison(n_workers=1, n_micro_batches=8), ["zb-h2", "1f1b", "gpipe"])
    found = best(alone)
    assert found is not None
    assert found.schedule == "zb-h2", "all are the same: the first"
