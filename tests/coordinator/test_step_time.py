"""The model of a step's time keeps the laws of dry runs, and every second has a cause."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.program.clock import on_the_clock
from coordinator.program.shared_cores import SharedCores, on_shared_cores
from coordinator.program.table import ActionTable, Times, apart, repeated, table_of
from coordinator.schedules import tabulate
from coordinator.timing.step_time import CAUSES, StepCosts, timed_step
from stages.actions import Program
from tests.coordinator.programs import anything_valid, built_in


def some_times(table: ActionTable, seed: int) -> Times:
    """Return times that are sums of quarters, so that floating-point sums are exact in any order."""
    return np.random.default_rng(seed).integers(1, 9, (table.n_stages, 4, table.n_micro_batches)) / 4


def performed(found: Program) -> ActionTable:
    return apart(table_of(found))


def costs(table: ActionTable, seed: int, *, barrier: float | None = None, cores: int = 1000) -> StepCosts:
    """Return costs of work alone, on one host."""
    compute = some_times(table, seed)
    none, n = np.zeros_like(compute), table.n_workers
    return StepCosts(
        compute=compute, send=none, receive=none, late=np.zeros(max(0, table.n_stages - 1)),
        update=(0.0,) * n, other=(0.0,) * n,
        shared=SharedCores(host_of=(0,) * n, cores=(cores,), turn=1.0), barrier=barrier,
    )  # fmt: skip


def with_links(found: StepCosts, table: ActionTable, seed: int) -> StepCosts:
    chance = np.random.default_rng(seed)
    size = found.compute.shape
    return replace(
        found,
        send=chance.integers(0, 3, size) / 4,
        receive=chance.integers(0, 3, size) / 4,
        late=chance.integers(0, 5, table.n_stages - 1) / 4,
        update=tuple((chance.integers(0, 5, table.n_workers) / 4).tolist()),
        other=tuple((chance.integers(0, 5, table.n_workers) / 4).tolist()),
    )


def work(table: ActionTable, found: Times) -> float:
    """Return the time of all actions together."""
    return float(sum(found.reshape(-1)[lane].sum() for lane in table.lanes))


@settings(deadline=None, max_examples=40)
@given(built_in(6, 8) | anything_valid(), st.integers(0, 2**32))
def test_if_nothing_else_takes_time_it_is_the_dry_run(found: Program, seed: int) -> None:
    table = performed(found)
    given_costs = costs(table, seed, barrier=0.0)
    step, dry = timed_step(table, given_costs), on_the_clock(table, given_costs.compute)
    assert step.seconds == dry.makespan
    assert [list(lane) for lane in step.spans] == [dry.spans(worker) for worker in range(table.n_workers)]
    assert step.bubble.total == pytest.approx(dry.bubble)


@settings(deadline=None, max_examples=40)
@given(built_in(6, 8) | anything_valid(), st.integers(0, 2**32))
def test_with_a_core_for_each_worker_sharing_changes_nothing(found: Program, seed: int) -> None:
    table = performed(found)
    times, n = some_times(table, seed), table.n_workers
    shared = SharedCores(host_of=(0,) * n, cores=(n,), turn=0.25)
    alone, together = on_the_clock(table, times, latency=0.5), on_shared_cores(table, times, shared, latency=0.5)
    assert not shared.is_tight
    for w in range(n):
        assert (alone.starts[w] == together.starts[w]).all()
        assert (alone.ends[w] == together.ends[w]).all()


@settings(deadline=None, max_examples=40)
@given(built_in(6, 8) | anything_valid(), st.integers(0, 2**32), st.integers(1, 4), st.sampled_from([0.25, 1.0, 50.0]))
def test_shared_cores_do_all_the_work_and_no_more(found: Program, seed: int, cores: int, turn: float) -> None:
    table = performed(found)
    times, n = some_times(table, seed), table.n_workers
    shared = SharedCores(host_of=(0,) * n, cores=(cores,), turn=turn)
    timed = on_shared_cores(table, times, shared)
    total = work(table, times)
    assert timed.makespan >= total / cores
    assert timed.makespan >= on_the_clock(table, times).makespan - 1e-9 or cores < n  # no faster than alone
    if cores == 1:  # somebody can always go on, if arrays come at once
        assert timed.makespan == total
    for w, lane in enumerate(table.lanes):
        assert (timed.ends[w] - timed.starts[w] >= times.reshape(-1)[lane]).all()


@settings(deadline=None, max_examples=40)
@given(built_in(5, 6), st.integers(0, 2**32), st.sampled_from([None, 0.0, 2.0]), st.sampled_from([1, 2, 1000]))
def test_the_causes_are_the_whole_step(found: Program, seed: int, barrier: float | None, cores: int) -> None:
    table = performed(found)
    given_costs = with_links(costs(table, seed, barrier=barrier, cores=cores), table, seed + 1)
    step = timed_step(table, given_costs)
    for row in step.by_worker:
        assert tuple(row) == CAUSES
        assert min(row.values()) >= 0
        assert sum(row.values()) == pytest.approx(step.seconds)
    assert 0 <= step.bubble.total < 1
    assert sum(step.bubble.stages) / table.n_workers == pytest.approx(step.bubble.total)
    if cores >= table.n_workers:
        assert step.by_cause["cores"] == 0


@settings(deadline=None, max_examples=30)
@given(built_in(5, 6), st.integers(0, 2**32))
def test_steps_without_a_barrier_overlap_but_no_worker_does_two_things(found: Program, seed: int) -> None:
    table = performed(found)
    given_costs = with_links(costs(table, seed), table, seed + 1)
    step = timed_step(table, given_costs)
    alone = timed_step(table, replace(given_costs, barrier=0.0))
    busiest = max(sum(row[cause] for cause in CAUSES[:6]) for row in step.by_worker)
    assert busiest - 1e-9 <= step.seconds <= alone.seconds + 1e-9


def test_zb_h2_hides_its_bubble_only_without_a_barrier() -> None:
    table = tabulate("zb-h2", n_stages=4, n_micro_batches=16)
    given_costs = replace(costs(table, 0), compute=np.ones((4, 4, 16)))
    assert timed_step(table, given_costs).bubble.total == pytest.approx(0.0)
    with_barrier = timed_step(table, replace(given_costs, barrier=0.0))
    assert with_barrier.seconds == 3 * 16 + 3
    assert with_barrier.by_cause["schedule"] == pytest.approx(3.0)


def test_slow_links_are_told_from_the_schedule() -> None:
    table = apart(tabulate("1f1b", n_stages=2, n_micro_batches=4))
    given_costs = replace(costs(table, 0, barrier=0.0), compute=np.ones((2, 4, 4)))
    quick, slow = (timed_step(table, replace(given_costs, late=np.array([late]))) for late in (0.0, 1.0))
    assert quick.by_cause["links"] == 0
    assert slow.by_cause["schedule"] == quick.by_cause["schedule"]
    assert slow.seconds - quick.seconds == slow.by_cause["links"]


def test_four_workers_on_two_cores_wait_for_cores() -> None:
    table = apart(tabulate("1f1b", n_stages=4, n_micro_batches=8))
    given_costs = replace(costs(table, 0, cores=2), compute=np.ones((4, 4, 8)))
    step = timed_step(table, given_costs)
    assert step.seconds >= 4 * 24 / 2
    assert step.bubble.total >= 0.5  # a worker computes half of the time at most
    assert step.by_cause["cores"] > step.by_cause["schedule"]


@settings(deadline=None, max_examples=20)
@given(built_in(4, 5), st.integers(1, 4))
def test_a_repeated_program_is_a_lawful_one(found: Program, steps: int) -> None:
    table = performed(found)
    again = repeated(table, steps)
    timed = on_the_clock(again)  # raises if it breaks a law
    assert work(again, np.ones((again.n_stages, 4, again.n_micro_batches))) == steps * sum(map(len, table.lanes))
    assert timed.makespan <= steps * on_the_clock(table).makespan
