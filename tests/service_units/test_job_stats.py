"""The service's figures of a run in memory: correct after each read, and bounded in size."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.service.job_stats import STATS_KEPT_S, Distribution, JobStats
from cluster.service.records import JobRecord
from cluster.service.run_feed import RunFeed, retire_attempt
from cluster.service.stats_board import StatsBoard
from cluster.service.stats_message import stats_message
from coordinator.queue.job_states import Failed, Recovering, Running, State
from coordinator.timing.series import RECENT_S, RECENT_STEPS, SERIES_POINTS, Rates, RecentSteps, Series
from tests.records import job_record


@given(values=st.lists(st.floats(0, 1000), max_size=50))
def test_a_distribution_counts_every_value_once(values: list[float]) -> None:
    found = Distribution((0.1, 1.0, 10.0))
    for value in values:
        found.observe(value)
    expected = [(str(b), float(sum(v <= b for v in values))) for b in (0.1, 1.0, 10.0)]
    assert found.cumulative() == [*expected, ("+Inf", float(len(values)))]
    assert found.sum == pytest.approx(sum(values))


@pytest.mark.parametrize("n", [0, 1, 2, SERIES_POINTS - 1, SERIES_POINTS, 5 * SERIES_POINTS + 7, 100_003])
def test_a_series_is_bounded_even_and_ends_with_the_newest(n: int) -> None:
    series = Series()
    for step in range(1, n + 1):
        series.add(step, float(step))
    points = series.points
    assert len(points) == n if n < SERIES_POINTS else SERIES_POINTS // 2 <= len(points) <= SERIES_POINTS
    if n:
        assert points[-1] == (n, float(n))
        assert points[0][0] <= max(1, n // 100)
        gaps = {b[0] - a[0] for a, b in pairwise(points[:-1])}
        assert len(gaps) <= 1, "evenly spaced, except the newest"


@pytest.mark.parametrize("n", [0, 1, 2, 299, 301, SERIES_POINTS, 5 * SERIES_POINTS + 7, 50_003])
def test_points_of_a_rate_leave_no_step_out_however_thin_they_are(n: int) -> None:
    rates = Rates()
    seconds = [4.0 if step % 4 == 1 else 1.0 for step in range(1, n + 1)]  # every fourth step takes four times as long
    for step, took in enumerate(seconds, start=1):
        rates.add(step, 64, took)
    assert len(rates.points) == n if n < SERIES_POINTS else SERIES_POINTS // 2 <= len(rates.points) < SERIES_POINTS
    thin = rates.thinned(300)
    assert n == 0 or min(n, 150) <= len(thin) <= 300
    for points in (rates.points, thin):
        assert [step for step, _ in points][-1:] == [n][:n]
        begin = 0
        for step, rate in points:
            assert rate == pytest.approx(64 * (step - begin) / sum(seconds[begin:step]))
            begin = step
        gaps = [b - a for a, b in pairwise([0, *(step for step, _ in points)])]
        assert len(set(gaps[:-1])) <= 1
        assert not gaps or gaps[-1] >= gaps[0], "the last point covers no fewer steps than the others"


def _recent(*seconds: float) -> RecentSteps:
    recent = RecentSteps()
    for took in seconds:
        recent.add(64, took, 0.9 if took > 2e-3 else 0.1)
    return recent


def test_a_recent_speed_is_that_of_the_last_seconds_and_not_of_one_step() -> None:
    assert (RecentSteps().samples_per_second, RecentSteps().bubble) == (None, None)
    fast, slow = [1e-3] * 3, [4e-3]
    recent = _recent(*[1.0] * 100, *[*fast, *slow] * 3000)
    assert recent.samples_per_second == pytest.approx(4 * 64 / 7e-3, rel=1e-3)
    assert recent.bubble == pytest.approx((3 * 0.1 + 4 * 0.9) / 7, rel=1e-3)
    assert len(recent._seen) <= 60


def test_a_recent_speed_is_of_several_steps_where_a_step_takes_long() -> None:
    assert _recent(*[60.0] * 50, *[RECENT_S] * RECENT_STEPS).samples_per_second == pytest.approx(64 / RECENT_S)
    assert _recent(10.0, 10.0, 40.0).samples_per_second == pytest.approx(3 * 64 / 60)


def _step(step: int, **more: float) -> dict[str, object]:
    row = {"step": step, "epoch": 1, "samples": 64, "loss": 2.0 / step, "seconds": 0.01, "grad_norm": 1.5}
    return {"kind": "step", **row, "learning_rate": 0.1, "bubble": 0.3, **more}


def _account(step: int) -> dict[str, object]:
    return {"step": step, "ended": 1000.0 + step, "wall_us": [10], "stage_us": [[1] * 8], "worker_us": [[0, 0, 0, 2]]}


def _write(folder: Path, steps: range, *, timeline_attempt: int = 1) -> None:
    with (folder / "metrics.jsonl").open("a") as rows, (folder / "accounts.jsonl").open("a") as accounts:
        for step in steps:
            rows.write(json.dumps(_step(step, bubble_predicted=0.2)) + "\n")
            accounts.write(json.dumps(_account(step)) + "\n")
    timeline = {"attempt": timeline_attempt, "step": steps[-1], "memory": [{"stage": 0, "worker": 0}]}
    (folder / ".part").write_text(json.dumps(timeline))
    (folder / ".part").replace(folder / "timeline.json")


def test_a_feed_read_in_pieces_gives_what_a_feed_read_at_once_gives(tmp_path: Path) -> None:
    pieces, whole = (JobStats(job="a", name="n", attempt=1) for _ in range(2))
    feed = RunFeed(tmp_path, 1, 0, pieces)
    for first in range(1, 31, 10):
        _write(tmp_path, range(first, first + 10))
        feed.look_for_rows()
    RunFeed(tmp_path, 1, 0, whole).look_for_rows()
    for stats in (pieces, whole):
        assert (stats.steps, stats.samples) == (30, 30 * 64)
        assert stats.latest["loss"] == pytest.approx(sum(2.0 / step for step in range(1, 31)) / 30)
        assert stats.accounts == _account(30)
        assert stats.last_step_at == 1030.0
        assert stats.placement == [0]
        assert stats.step_seconds.cumulative()[-1] == ("+Inf", 30.0)
        assert [step for step, _ in stats.series["loss"].points] == list(range(1, 31))
        assert stats.series["bubble_predicted"].points[-1] == (30, 0.2)
    assert pieces.series["loss"].points == whole.series["loss"].points


def test_a_message_has_the_speed_and_bubble_of_recent_steps() -> None:
    stats = JobStats(job="a", name="n", attempt=1)
    for step in range(1, 9):
        stats.take_row(_step(step, seconds=0.01 if step % 2 else 0.04, bubble=0.2 if step % 2 else 0.8))
    message = stats_message(stats)
    assert message.samples_per_second == pytest.approx(8 * 64 / 0.2)
    assert message.bubble == pytest.approx((0.01 * 0.2 + 0.04 * 0.8) / 0.05)
    assert stats.series["samples_per_second"].points[-1] == (8, 64 / 0.04)


def test_the_picture_of_an_attempt_before_is_not_shown_and_its_accounts_are_put_aside(tmp_path: Path) -> None:
    _write(tmp_path, range(1, 6))
    before = (tmp_path / "accounts.jsonl").read_bytes()
    retire_attempt(tmp_path, 1)
    assert (tmp_path / "accounts.attempt-1.jsonl").read_bytes() == before
    stats = JobStats(job="a", name="n", attempt=2)
    feed = RunFeed(tmp_path, 2, 0, stats)
    feed.look_for_rows()
    assert (stats.steps, stats.accounts, stats.timeline) == (0, None, None)
    _write(tmp_path, range(1, 3), timeline_attempt=2)
    feed.look_for_rows()
    assert (stats.steps, stats.accounts) == (2, _account(2))
    assert stats.timeline is not None


def _record(state: State, attempt: int = 1) -> JobRecord:
    return job_record(state=state, attempt=attempt, submitted_at=100.0, started_at=103.0)


def test_figures_stay_for_a_while_after_the_end_and_then_go() -> None:
    now = [0.0]
    board = StatsBoard(lambda: now[0])
    assert board.queue_wait.sum == 0.0
    board.begins(_record(Running(attempt=1)))
    assert board.queue_wait.cumulative()[-1] == ("+Inf", 1.0)
    assert board.queue_wait.sum == 3.0
    now[0] = 1000.0
    board.sweep()
    assert board.jobs["job1"].ended_at is None, "the figures of a running job are kept without a limit"
    board.ended(_record(Failed(attempt=1, cause="it became nan", kind="NonFinite")))
    assert (board.failures, board.ended_jobs) == ({"NonFinite": 1}, {"FAILED": 1})
    now[0] += STATS_KEPT_S - 1
    board.sweep()
    assert list(board.jobs) == ["job1"]
    now[0] += 2
    board.sweep()
    assert not board.jobs


def test_a_job_that_was_admitted_before_the_service_started_waits_in_no_queue_again() -> None:
    board = StatsBoard(lambda: 103.5)
    stats = board.begins(_record(Running(attempt=1)))
    assert stats.queue_wait_seconds == 3.0
    assert board.queue_wait.cumulative()[-1][1] == 0.0


def test_a_planned_end_of_the_cluster_is_no_loss() -> None:
    board = StatsBoard(lambda: 0.0)
    board.begins(_record(Running(attempt=2, lost=1), attempt=2))
    board.waits(_record(Recovering(attempt=3, cause="the service was shut down", lost=1), attempt=2))
    assert board.restarts == {}


def test_an_attempt_that_ray_ended_is_counted_and_the_next_begins_anew() -> None:
    board = StatsBoard(lambda: 0.0)
    first = board.begins(_record(Running(attempt=1)))
    first.take_row(_step(41))
    board.waits(_record(Recovering(attempt=2, cause="Ray was killed", lost=1)))
    second = board.begins(_record(Running(attempt=2, lost=1), attempt=2))
    assert (second.attempt, second.steps, second.losses) == (2, 0, 1)
    assert board.restarts == {"cluster_lost": 1}
    assert board.queue_wait.cumulative()[-1][1] == 1.0, "a job's wait is counted once"
