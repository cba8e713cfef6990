from __future__ import annotations

import time

import pytest

from cluster.actors.spinning import Spinning, preemptions


@pytest.mark.parametrize(
    ("times", "cpu_s", "allowed"),
    [(0, 0.0, True), (1, 0.0, True), (40, 0.5, True), (60, 0.5, False), (20, 0.05, False)],
)
def test_a_thread_that_is_often_preempted_for_its_cpu_time_does_not_spin(
    times: int, cpu_s: float, allowed: bool
) -> None:
    counts = iter([(100, 7.0), (100 + times, 7.0 + cpu_s), (100 + times, 8.0 + cpu_s)])
    spinning = Spinning(wanted=True, count=lambda: next(counts))
    assert spinning.allowed(1.0), "nothing is known yet"
    assert spinning.allowed(1.2), "too early to judge"
    assert spinning.allowed(1.5) is allowed
    assert spinning.allowed(1.9) is allowed
    assert spinning.allowed(2.0), "the others have gone"


def test_who_must_not_spin_counts_nothing() -> None:
    def fail() -> tuple[int, float]:
        raise AssertionError("there is nothing to judge")

    assert not Spinning(wanted=False, count=fail).allowed(1.0)


def test_the_kernel_counts_for_this_thread() -> None:
    before, began = preemptions(), time.thread_time()
    while time.thread_time() - began < 0.1:  # the kernel counts in ticks of some milliseconds
        sum(range(10_000))
    after = preemptions()
    assert after[0] >= before[0]
    assert after[1] > before[1]
