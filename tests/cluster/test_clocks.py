"""Clocks of other hosts: the reported error is never smaller than the real error."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from cluster.actors.clocks import Clocks, clock_name, measure
from coordinator.train.workers import ClockFix

_DELAYS = st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)), min_size=5, max_size=5)


@given(delays=_DELAYS, skew=st.floats(-1e6, 1e6))
def test_the_offset_is_within_the_error_that_is_told(delays: list[tuple[float, float]], skew: float) -> None:
    now, ways = [100.0], iter(delays)

    def ask() -> float:
        there, back = next(ways)
        now[0] += there
        answer = now[0] - skew
        now[0] += back
        return answer

    fix = measure(ask, lambda: now[0])
    assert abs(fix.offset - skew) <= fix.error + 1e-9 * max(1.0, abs(skew))
    assert fix.error <= min(there + back for there, back in delays) / 2 + 1e-9


def test_a_worker_that_shares_our_clock_needs_no_fix_and_one_that_is_silent_keeps_its_last() -> None:
    answers: list[Callable[[], float]] = [lambda: -1000.0]

    def ask() -> float:
        return answers[-1]()

    clocks = Clocks([None, ask])
    fixes = list(clocks.fixes())
    assert fixes[0] == ClockFix(0.0, 0.0)
    assert fixes[1].offset > 1000.0

    def silent() -> float:
        raise TimeoutError

    answers.append(silent)
    clocks._until = 0.0
    assert list(clocks.fixes()) == fixes


def test_processes_of_this_host_share_their_clock() -> None:
    assert clock_name() == clock_name() != ""
