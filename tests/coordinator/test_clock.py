"""The dry run as numbers gives the same times and peaks as `replay`, however many workers there are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.program import clock
from coordinator.program.clock import Timed, Waking, as_papers_count, as_workers_do, on_the_clock
from coordinator.program.kept import kept
from coordinator.program.replay import replay
from coordinator.program.shared_cores import SharedCores, on_shared_cores
from coordinator.program.table import KINDS, ActionTable, Times, apart, table_of
from coordinator.program.thin_drawing import draw_thin
from coordinator.schedules import tabulate
from coordinator.timing.prediction import as_performed, durations, products
from stages.actions import Action, Program
from stages.errors import InvalidSchedule
from tests.coordinator.programs import anything_valid, built_in, program


@pytest.fixture(params=[1, 10_000], ids=["all at once", "by worker"])
def wide(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every program is performed in one of the two ways."""
    monkeypatch.setattr(clock, "_WIDE", request.param)


def some_times(found: Program, seed: int) -> Times:
    return np.random.default_rng(seed).integers(1, 9, (found.n_stages, 4)) / 4


def both_ways(found: Program, times: Times, latency: float = 0.0, group: int = 1) -> list[Timed]:
    ways = []
    for fewest in (1, 10_000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clock, "_WIDE", fewest)
            ways.append(as_workers_do(table_of(found), times, latency=latency, weight_grad_group=group))
    return ways


@settings(deadline=None, max_examples=60)
@given(built_in(7, 10) | anything_valid(), st.integers(0, 2**32), st.integers(1, 4))
def test_times_bubbles_and_peaks_are_those_of_replay(found: Program, seed: int, group: int) -> None:
    """… of the program as workers perform it, and of its weight-gradient groups."""
    times, done = some_times(found, seed), as_performed(found)
    made = products(done, group)
    dry = replay(done, durations(made, lambda stage, kind, j: float(times[stage, KINDS.index(kind)])))
    for timed in both_ways(found, times, group=group):
        assert [timed.spans(worker) for worker in range(found.n_workers)] == [list(lane) for lane in dry.spans]
        assert (timed.makespan, timed.busy) == (dry.makespan, dry.busy)
        assert timed.bubble == dry.bubble
        assert timed.table.placement == found.placement


@pytest.mark.usefixtures("wide")
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(built_in(7, 10) | anything_valid(), st.integers(0, 2**32))
def test_papers_count_a_backward_as_one_action(found: Program, seed: int) -> None:
    if found.pairs:
        return
    times = some_times(found, seed)
    dry = replay(found, lambda a: float(times[a.stage, KINDS.index(a.kind)]))
    timed = as_papers_count(table_of(found), times)
    assert [timed.spans(worker) for worker in range(found.n_workers)] == [list(lane) for lane in dry.spans]
    assert timed.bubble == dry.bubble


@settings(deadline=None, max_examples=60)
@given(built_in(7, 10) | anything_valid(), st.integers(1, 5))
def test_what_is_kept_is_that_of_replay(found: Program, group: int) -> None:
    dry, peaks = replay(found, weight_grad_group=group), kept(table_of(found), group)
    assert peaks.alive == dry.peak_alive
    assert peaks.for_input == dry.peak_saved_for_input
    assert peaks.together == dry.worker_peak_alive


@settings(deadline=None, max_examples=60)
@given(built_in(6, 8) | anything_valid(), st.integers(0, 2**32), st.sampled_from([0.25, 3.0]))
def test_with_a_latency_no_array_is_used_before_it_arrives(found: Program, seed: int, latency: float) -> None:
    narrow, wide = both_ways(found, some_times(found, seed), latency)
    assert all(np.array_equal(a, b) for a, b in zip(narrow.starts, wide.starts, strict=True))
    at = {span.action: span for worker in range(found.n_workers) for span in narrow.spans(worker)}
    place = found.placement
    for action, span in at.items():
        step = {"F": -1, "I": 1, "W": 0}[action.kind]
        if not step or not 0 <= action.stage + step < found.n_stages:
            continue
        needed = Action(action.stage + step, KINDS[0] if step < 0 else KINDS[1], action.micro_batch)
        late = latency if place[needed.stage] != place[action.stage] else 0.0
        assert span.start >= at[needed].end + late


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize(
    ("lanes", "message"),
    [
        (("0F0 0F1 0B0", "1F0 1B0 1F1 1B1"), "0B1 is missing"),
        (("0F0 0B0 0B0", "1F0 1B0"), "appears a second time"),
        (("0F0 0I0", "1F0 1B0"), "0W0 is missing"),
        (("0F0 0W0 0I0", "1F0 1B0"), "stands before"),
        (("0F0 0I0 0W0 0B0", "1F0 1B0"), "stands beside"),
        (("0F0 0B0", "0F1 0B1"), "on a second worker"),
        (("0F0 0B0 0F1 0B1", "1F1 1F0 1B0 1B1"), "in a circle"),
    ],
)
def test_a_broken_law_is_named_as_by_replay(lanes: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidSchedule, match=message) as named:
        on_the_clock(table_of(program(*lanes)))
    with pytest.raises(InvalidSchedule) as replayed:
        replay(program(*lanes))
    with pytest.raises(InvalidSchedule) as performed:
        as_workers_do(table_of(program(*lanes)))
    assert str(named.value) == str(replayed.value) == str(performed.value)


def test_messages_are_counted_between_workers() -> None:
    def count(name: str, stages: int, workers: int | None = None) -> int:
        return on_the_clock(tabulate(name, n_stages=stages, n_micro_batches=8, n_workers=workers)).messages

    assert count("1f1b", 4) == 2 * 3 * 8
    assert count("interleaved-1f1b", 8) == 2 * 7 * 8
    assert count("zbv", 8) == 2 * 6 * 8  # at the turn of the V nothing is sent
    assert count("gpipe", 4, 1) == 0


def test_a_table_is_its_program() -> None:
    made = tabulate("dualpipev", n_stages=6, n_micro_batches=7)
    again = table_of(made.program())
    assert isinstance(again, ActionTable)
    assert all(np.array_equal(a, b) for a, b in zip(made.lanes, again.lanes, strict=True))
    assert np.array_equal(made.pairs, again.pairs)


# thin pictures -----------------------------------------------------------------------------------------------------


def test_a_thin_picture_has_the_action_that_takes_most_of_each_letter_s_time() -> None:
    timed = as_workers_do(tabulate("gpipe", n_stages=2, n_micro_batches=3))
    assert draw_thin(timed, columns=10 + 11) == "worker 0  FFF··IWIWIW\nworker 1  ·FFFIWIWIW·"
    assert draw_thin(timed, columns=10 + 15, until=15) == "worker 0  FFF··IWIWIW····\nworker 1  ·FFFIWIWIW·····"
    slow = as_workers_do(timed.table, np.array([1.0, 1.0, 3.0, 4.0]))
    assert draw_thin(slow, columns=10 + 5) == "worker 0  F·WWW\nworker 1  FWWWW"


def test_a_thin_picture_of_many_workers_shows_some_of_them() -> None:
    timed = as_workers_do(tabulate("1f1b", n_stages=100, n_micro_batches=9))
    lines = draw_thin(timed, columns=80).splitlines()
    assert len(lines) == 32
    assert (lines[0][:12], lines[1][:12], lines[-1][:12]) == ("worker  0  F", "worker  3  ·", "worker 99  ·")


@settings(deadline=None, max_examples=40)
@given(built_in(6, 8), st.integers(0, 2**32), st.sampled_from([0.5, 2.0]))
def test_a_worker_that_has_waited_long_begins_later_on_every_clock(found: Program, seed: int, after: float) -> None:
    table, times = apart(table_of(found)), np.random.default_rng(seed).integers(1, 9, (found.n_stages, 4)) / 4
    waking, n = Waking(after, 0.25), found.n_workers
    shared = SharedCores(host_of=range(n), cores=(1,) * n, turn=1.0)
    ways = [on_shared_cores(table, times, shared, latency=0.5, waking=waking)]
    for fewest in (1, 10_000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clock, "_WIDE", fewest)
            ways.append(on_the_clock(table, times, latency=0.5, waking=waking))
            awake = on_the_clock(table, times, latency=0.5)
    slept = False
    for worker in range(n):
        starts, ends = ways[0].starts[worker], ways[0].ends[worker]
        assert all((way.starts[worker] == starts).all() for way in ways)
        waits = starts - np.concatenate([[0.0], ends[:-1]])
        assert not ((waits > after) & (waits <= after + 0.25)).any(), "waking up takes that long"
        slept |= bool((waits > after).any())
    assert (ways[0].makespan >= awake.makespan) if slept else (ways[0].makespan == awake.makespan)
