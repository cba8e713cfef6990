from __future__ import annotations

import time

import pytest

from cluster.actors.spinning import Spinning, core_times


@pytest.mark.parametrize(
    ("waited", "cpu_s", "allowed"),
    [(0.0, 0.001, True), (0.004, 0.001, True), (0.1, 0.41, True), (0.15, 0.4, False), (0.25, 0.25, False)],
)
def test_a_thread_that_waits_long_for_a_core_for_its_cpu_time_does_not_spin(
    waited: float, cpu_s: float, allowed: bool
) -> None:
    counts = iter([(3.0, 7.0), (3.0 + waited, 7.0 + cpu_s), (3.0 + waited, 8.0 + cpu_s)])
    spinning = Spinning(wanted=True, count=lambda: next(counts))
    assert spinning.allowed(1.0), "nothing is known yet"
    assert spinning.allowed(1.2), "too early to judge"
    assert spinning.allowed(1.5) is allowed
    assert spinning.allowed(1.9) is allowed
    assert spinning.allowed(2.0), "the others have gone"


def test_nobody_spins_if_the_kernel_does_not_tell() -> None:
    spinning = Spinning(wanted=True, count=lambda: (0.0, 0.0))
    assert spinning.allowed(1.0), "nothing is known yet"
    assert not spinning.allowed(2.0)


def test_who_must_not_spin_counts_nothing() -> None:
    def fail() -> tuple[float, float]:
        raise AssertionError("there is nothing to judge")

    assert not Spinning(wanted=False, count=fail).allowed(1.0)


def test_the_kernel_counts_for_this_thread() -> None:
    before, began = core_times(), time.thread_time()
    while time.thread_time() - began < 0.05:
        sum(range(10_000))
    after = core_times()
    assert after[0] >= before[0]
    assert after[1] > before[1]
