"""Per cent, time left and the browser tab's title of a job."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.dashboard.job_progress import SIGNS, percent, tab_title, time_left
from cluster.service.job_stats import JobStats
from cluster.service.records import JobRecord
from coordinator.queue.job_states import STATE_NAMES, Failed, Queued, Running, State, Succeeded
from tests.records import job_record


def record(state: State, **more: Any) -> JobRecord:
    return job_record("j", name="digits", state=state, submitted_at=0.0, **more)


@pytest.mark.parametrize(
    ("state", "step", "total", "title"),
    [
        (Running(attempt=1), 97, 690, "▶ 14% digits"),
        (Running(attempt=1), 689, 690, "▶ 99% digits"),
        (Running(attempt=1), 0, None, "▶ digits"),
        (Queued(), 0, None, "… digits"),
        (Succeeded(attempt=1), 690, 690, "✓ digits"),
        (Failed(attempt=1, cause="x", kind="y"), 3, 690, "✗ digits"),
    ],
)
def test_the_tab_tells_the_state_and_how_far_the_job_is(state: State, step: int, total: int | None, title: str) -> None:
    assert tab_title(record(state, step=step, steps_total=total)) == title


def test_every_state_has_a_sign_of_its_own() -> None:
    assert set(SIGNS) == set(STATE_NAMES)
    assert len(set(SIGNS.values())) == len(STATE_NAMES)


def test_time_left_is_that_of_the_steps_that_remain_at_the_speed_of_the_last_ones() -> None:
    stats = JobStats(job="j", name="digits", attempt=1)
    runs = record(Running(attempt=1), step=20, steps_total=320)
    assert time_left(runs, stats) == "", "no step was made yet"
    row = {"kind": "step", "epoch": 1, "samples": 100, "loss": 1.0, "grad_norm": 1.0, "learning_rate": 0.1}
    for step in range(1, 21):
        stats.take_row({**row, "step": step, "seconds": 0.5, "bubble": 0.1})
    assert time_left(runs, stats) == "2 min left", "300 steps of half a second"
    assert time_left(record(Succeeded(attempt=1), step=20, steps_total=320), stats) == ""
    assert percent(runs) == 6
