"""Programs that are searched for given times: never slower than a built-in schedule, and within the memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.program.clock import as_workers_do, on_the_clock
from coordinator.program.kept import kept
from coordinator.program.replay import check
from coordinator.program.table import ActionTable, Times, apart, table_of
from coordinator.schedules import SCHEDULES, tabulate
from coordinator.schedules.csv_format import read_csv, write_csv
from coordinator.schedules.improving import improve
from coordinator.schedules.search import Wanted, search
from coordinator.timing.lab import ScheduleComparison, compare, search_too
from stages.actions import Program
from stages.errors import InvalidSchedule, UserMistake
from tests.coordinator.programs import built_in, really_performable
from tests.examples import examples


def drawn_times(n_stages: int, seed: int) -> Times:
    times = np.random.default_rng(seed).integers(0, 9, (n_stages, 4)) / 4
    times[:, 3] = times[:, 1] + times[:, 2]
    return times


def best_built_in(wanted: Wanted) -> float:
    steps = []
    for name in SCHEDULES:
        try:
            table = tabulate(
                name, n_stages=wanted.n_stages, n_micro_batches=wanted.n_micro_batches, n_workers=wanted.n_workers
            )
        except InvalidSchedule:
            continue
        if wanted.fits(table):
            steps.append(as_workers_do(table, wanted.times, latency=wanted.latency).makespan)
    return min(steps, default=np.inf)


@settings(max_examples=examples(12, 25), deadline=None)
@given(
    n_stages=st.integers(1, 6),
    m=st.integers(1, 8),
    data=st.data(),
    seed=st.integers(0, 2**32),
    latency=st.sampled_from([0.0, 0.5, 3.0]),
    memory=st.sampled_from([1, 2, 4, None]),
)
def test_it_is_never_slower_than_a_built_in_one_and_fits(
    n_stages: int, m: int, data: st.DataObject, seed: int, latency: float, memory: int | None
) -> None:
    n_workers = data.draw(st.integers(1, n_stages))

    def fits(table: ActionTable) -> bool:
        return memory is None or max(kept(table).together) <= memory

    wanted = Wanted(
        n_stages=n_stages, n_micro_batches=m, n_workers=n_workers, times=drawn_times(n_stages, seed), latency=latency,
        fits=fits,
    )  # fmt: skip
    found = search(wanted)
    if found is None:
        assert best_built_in(wanted) == np.inf
        return
    program = found.table.program()
    check(program)
    assert really_performable(program)
    assert fits(found.table)
    assert found.step == on_the_clock(found.table, wanted.times, latency=latency).makespan
    assert found.step <= best_built_in(wanted)
    assert read_csv(write_csv(program)).lanes == program.lanes


@settings(max_examples=examples(15, 30), deadline=None)
@given(built_in(6, 8), st.integers(0, 2**32), st.sampled_from([0.0, 0.5]))
def test_moves_keep_the_laws_and_the_memory_and_never_make_a_step_longer(
    found: Program, seed: int, latency: float
) -> None:
    before, times = apart(table_of(found)), drawn_times(found.n_stages, seed)
    after = improve(before, times, latency, tries=60)
    check(after.table.program())
    assert after.step == on_the_clock(after.table, times, latency=latency).makespan
    assert after.step <= on_the_clock(before, times, latency=latency).makespan
    peaks = zip(kept(after.table).together, kept(before).together, strict=True)
    assert all(now <= then for now, then in peaks)


def test_moves_find_the_best_of_a_bad_beginning() -> None:
    """Two workers and all forwards first; the best order takes 3 m + 1."""
    begin = apart(tabulate("gpipe", n_stages=2, n_micro_batches=6))
    times = np.array([1.0, 1.0, 1.0, 2.0])
    assert on_the_clock(begin, times).makespan == 3 * 6 + 2
    assert improve(begin, times, 0.0, tries=500).step == 3 * 6 + 1


def test_unlike_stages_and_slow_links_gain_and_the_answer_is_always_the_same() -> None:
    question = ScheduleComparison(n_workers=4, n_micro_batches=10, times=(1.0, 1.5, 0.7), latency=0.3)
    found, again = search_too(question), search_too(question)
    assert found.gain is not None
    assert found.gain > 0.03
    assert found.row.timed.table.program() == again.row.timed.table.program()
    assert all(found.row.step <= row.step for row in compare(question) if hasattr(row, "step"))


def test_a_tight_memory_has_a_schedule_although_no_built_in_one_fits() -> None:
    searched = search_too(ScheduleComparison(n_workers=4, n_micro_batches=6, memory=1))
    assert (searched.row.kept, searched.built_in, searched.gain) == (1.0, None, None)
    with pytest.raises(UserMistake, match=r"0\.5 micro-batches a worker, but a worker keeps at least 1"):
        search_too(ScheduleComparison(n_workers=4, n_micro_batches=6, memory=0.5))


def test_too_large_a_search_is_refused() -> None:
    with pytest.raises(UserMistake, match="64 workers × 65 micro-batches are too many to search, at most 4,096"):
        search_too(ScheduleComparison(n_workers=64, n_micro_batches=65))
