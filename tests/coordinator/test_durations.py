from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.texts import precise_span, step_time
from coordinator.timing.durations import Durations
from coordinator.timing.series import RecentSteps


@given(st.lists(st.tuples(st.floats(1e-7, 1e5), st.integers(1, 5)), min_size=1, max_size=80), st.integers(0, 80))
def test_the_mean_is_exact_and_the_median_right_to_a_quarter_of_a_per_cent(
    steps: list[tuple[float, int]], cut: int
) -> None:
    """However the durations are divided before they are put together."""
    first, second = Durations(), Durations()
    for place, (seconds, times) in enumerate(steps):
        (first if place < cut else second).add(seconds, times)
    first.update(second)
    every = [seconds for seconds, times in steps for _ in range(times)]
    assert first.count == len(every)
    assert first.mean is not None
    assert first.median is not None
    assert math.isclose(first.mean, statistics.fmean(every), rel_tol=1e-9)
    assert math.isclose(first.median, statistics.median_low(every), rel_tol=0.00251)


def test_no_durations_have_no_mean_and_no_median() -> None:
    assert (Durations().mean, Durations().median, Durations().count) == (None, None, 0)


def test_one_slow_step_counts_in_the_mean_of_the_last_steps_and_not_in_their_median() -> None:
    recent = RecentSteps()
    for place in range(100):
        recent.add(8, 0.012 if place == 50 else 0.002, 0.5)
    assert recent.durations.mean == pytest.approx(0.0021)
    assert recent.durations.median == pytest.approx(0.002, rel=0.003)


def test_a_row_of_joined_steps_counts_as_that_many() -> None:
    recent = RecentSteps()
    recent.add(80, 0.1, 0.5, 10)
    recent.add(8, 0.02, 0.5)
    assert recent.durations.count == 11
    assert recent.durations.mean == pytest.approx(0.12 / 11)
    assert recent.durations.median == pytest.approx(0.01, rel=0.003)


def test_steps_that_left_the_window_are_not_in_its_durations() -> None:
    recent = RecentSteps()
    for _ in range(40):
        recent.add(8, 1.0, 0.5)
    for _ in range(12):
        recent.add(8, 2.0, 0.5)
    assert recent.durations.median == pytest.approx(2.0, rel=0.003)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.321e-7, "0.432 µs"),
        (0.000432, "432 µs"),
        (0.0026349, "2.63 ms"),
        (0.9996, "1 s"),
        (0.999, "999 ms"),
        (12.34, "12.3 s"),
        (1234.5, "1,234 s"),
    ],
)
def test_a_duration_has_three_digits(seconds: float, text: str) -> None:
    assert precise_span(seconds) == text


def test_the_time_of_a_step_has_both() -> None:
    assert step_time(0.00263, 0.00231) == "2.63 ms (median 2.31 ms)"
