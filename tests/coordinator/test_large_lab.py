"""Comparisons that are too large to perform: by the laws of the schedules, or estimated from smaller programs."""

from __future__ import annotations

from itertools import product

import pytest

from coordinator.job.schedule_names import SCHEDULES
from coordinator.timing import lab
from coordinator.timing.lab import LeftOut, Row, ScheduleComparison, compare, how_estimated
from coordinator.timing.scaling import PerformedStep, ProgramSize, scale_up
from coordinator.timing.step_laws import kept_by_law, messages_by_law, step_by_law

SMALL = list(product((1, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5, 8, 13, 17)))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_laws_are_those_of_the_programs(schedule: str) -> None:
    """For all small p and m: what is kept and sent always, the step wherever there is a law."""
    lawful = 0
    for p, m in SMALL:
        (row,) = compare(ScheduleComparison(n_workers=p, n_micro_batches=m), [schedule])
        if isinstance(row, LeftOut):
            continue
        assert row.origin == "program"
        assert (row.kept, row.messages) == (kept_by_law(schedule, p, m), messages_by_law(schedule, p, m)), (p, m)
        law = step_by_law(schedule, p, m, (1.0, 1.0, 1.0), 0.0)
        if law is not None:
            lawful += 1
            assert (row.step, row.span) == pytest.approx((law.step, law.span)), (p, m)
    assert lawful >= 14


@pytest.mark.parametrize(("schedule", "latency"), [("gpipe", 0.0), ("gpipe", 0.75), ("1f1b", 0.0), ("looped-bfs", 0.0)])
@pytest.mark.parametrize("times", [(1.0, 1.5, 0.75), (1.0, 0.5, 2.0), (2.0, 0.25, 0.5)])
def test_some_laws_hold_for_any_times(schedule: str, latency: float, times: tuple[float, float, float]) -> None:
    for p, m in product((1, 2, 3, 5, 8), (1, 2, 5, 8, 13)):
        (row,) = compare(ScheduleComparison(n_workers=p, n_micro_batches=m, times=times, latency=latency), [schedule])
        law = step_by_law(schedule, p, m, times, latency)
        assert law is not None or (schedule == "looped-bfs" and m < p)
        if law is not None:
            assert isinstance(row, Row)
            assert (row.step, row.span) == pytest.approx((law.step, law.span)), (p, m)


@pytest.mark.parametrize("schedule", ["interleaved-1f1b", "zb-h1", "v-min"])
@pytest.mark.parametrize(("p", "m"), [(105, 160), (9, 1000), (110, 12)])
def test_estimates_meet_the_programs(schedule: str, p: int, m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """… within half a percent, for unlike times and a latency, where no law is known."""
    monkeypatch.setattr(lab, "_LITTLE_WORK", 0)
    question = ScheduleComparison(n_workers=p, n_micro_batches=m, times=(1.0, 1.5, 0.75), latency=0.25)
    (guessed,), (true,) = compare(question, [schedule], most_work=0), compare(question, [schedule], most_work=10**12)
    assert isinstance(guessed, Row)
    assert isinstance(true, Row)
    assert (guessed.origin, true.origin) == ("estimate", "program")
    assert guessed.step == pytest.approx(true.step, rel=0.005)
    assert guessed.span == pytest.approx(true.span, rel=0.005)
    assert (guessed.kept, guessed.messages, guessed.n_stages) == (true.kept, true.messages, true.n_stages)


def test_ten_thousand_workers() -> None:
    """F = I = W: every figure is exact, and no large program is made."""
    rows = compare(ScheduleComparison(n_workers=10_000, n_micro_batches=40_000))
    built = {row.schedule: row for row in rows if isinstance(row, Row)}
    assert built.keys() == set(SCHEDULES)
    assert {row.origin for row in built.values()} == {"law"}
    assert built["zb-h1"].step == 3 * 40_000 + 9_999
    assert built["zbv"].bubble_rate == 0
    assert built["v-min"].kept == 3334
    assert max(row.timed.table.n_workers for row in built.values()) <= 24
    assert how_estimated(rows) == [
        "too large to perform: what is kept and sent is exact, by the laws of the schedules",
        "law: the step is exact, by the law of the schedule for these times",
    ]


def test_an_estimate_says_from_which_programs_and_how_far_it_was_checked() -> None:
    question = ScheduleComparison(n_workers=10_000, n_micro_batches=40_000, latency=0.5)
    (row,) = compare(question, ["zb-h1"])
    assert isinstance(row, Row)
    assert (row.origin, row.scaled is None) == ("estimate", False)
    told = row.as_dict()
    assert told["estimated_from"] == [[28, 112], [52, 208], [100, 400]]
    assert isinstance(told["missed"], float)
    assert told["missed"] < 1e-3
    assert row.origin_text() == "estimate ±0.00%"
    assert how_estimated([row])[-1] == (
        "estimate: a straight line through programs of 52 × 208 and 100 × 400 (workers × micro-batches); ±: by how "
        "much the line through 28 × 112 and 52 × 208 missed 100 × 400"
    )


@pytest.mark.parametrize(
    "size",
    [
        ProgramSize(10_000, 40_000),
        ProgramSize(3, 10**9),
        ProgramSize(10**9, 5),
        ProgramSize(10**6, 10**3),
        ProgramSize(10**9, 10**9),
        ProgramSize(97, 9**9),
    ],
)
def test_a_straight_line_is_found_whatever_the_size(size: ProgramSize) -> None:
    """… and the programs that it is found with stay small."""
    performed: list[ProgramSize] = []

    def perform(one: ProgramSize) -> PerformedStep:
        performed.append(one)
        return PerformedStep(3.0 * one.micro_batches + 2 * one.workers, 3.0 * one.micro_batches + one.workers)

    found = scale_up(size, 3.0, perform)
    p, m = size
    assert found.step == pytest.approx(3.0 * m + 2 * p)
    assert found.span == pytest.approx(3.0 * m + p)
    assert found.missed == pytest.approx(0)
    assert all(one.workers * one.micro_batches < 2**17 for one in performed)


def test_a_line_that_does_not_hold_is_told() -> None:
    found = scale_up(ProgramSize(10_000, 40_000), 3.0, lambda one: PerformedStep(float(one.workers**2), 1.0))
    assert found.missed > 0.2


def test_a_program_that_needs_little_work_is_performed_although_others_are_too_large() -> None:
    question = ScheduleComparison(n_workers=3, n_micro_batches=40, latency=0.5)
    rows = compare(question, most_work=1)
    assert {row.schedule: row.origin for row in rows if isinstance(row, Row)} == dict.fromkeys(SCHEDULES, "program") | {
        "gpipe": "law"
    }


def test_work_counts_what_a_comparison_costs() -> None:
    """The order of magnitude only: a comparison that is performed takes seconds, not minutes."""
    assert lab.work("zb-h1", ProgramSize(8, 32)) < 20_000
    assert lab.work("zb-h1", ProgramSize(1024, 4096)) <= lab.MOST_WORK < lab.work("zb-h1", ProgramSize(2048, 8192))
    assert sum(lab.work(name, ProgramSize(1024, 4096)) for name in SCHEDULES) > lab.MOST_WORK
