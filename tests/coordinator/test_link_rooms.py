"""In a dry run with bounded links a worker waits for room as the links of a host let it wait."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.job.spec import parse_job
from coordinator.plan.blueprint import Blueprint, make_blueprint
from coordinator.plan.predicted_step import estimated_times, predicted_step
from coordinator.program.clock import Timed, on_the_clock
from coordinator.program.link_rooms import LinkRooms
from coordinator.program.shared_cores import SharedCores, on_shared_cores
from coordinator.program.table import ActionTable, Times, apart, table_of
from coordinator.timing.step_time import CAUSES
from stages.actions import Action, Kind, Program
from tests.coordinator.programs import anything_valid, built_in
from tests.jobs import digits_job


def bounded(table: ActionTable, times: Times, rooms: LinkRooms) -> Timed:
    n = table.n_workers
    own = SharedCores(host_of=range(n), cores=(1,) * n, turn=1000.0)
    return on_shared_cores(table, times, own, rooms=rooms)


def of_one_size(table: ActionTable, room: float) -> LinkRooms:
    """Arrays of a byte, and so many in each link."""
    n, workers = (table.n_stages, 4, table.n_micro_batches), range(table.n_workers)
    return LinkRooms(n_bytes=np.ones(n), room={(a, b): room for a in workers for b in workers if a != b})


def test_a_sender_waits_until_the_receiver_that_computes_asks_for_an_array() -> None:
    lanes = [tuple(Action(stage, Kind.FORWARD, j) for j in range(4)) for stage in (0, 1)]
    table = table_of(Program("forward", 2, 4, tuple(lanes)))
    times = np.array([[1.0] * 4, [10.0] * 4])
    found = bounded(table, times, of_one_size(table, 1.0))
    assert found.ends[0].tolist() == [1, 2, 11, 21]
    assert found.held[0].tolist() == [0, 0, 8, 9]
    assert found.starts[1].tolist() == [1, 11, 21, 31], "the receiver is never late for it"
    assert not found.held[1].any()


def test_a_receiver_that_waits_takes_in_what_is_there() -> None:
    """Worker 1 has a stage of its own to wait for; meanwhile arrays for its other stage come, and need no room."""
    forward = Kind.FORWARD
    first = [Action(0, forward, j) for j in range(4)]
    second = [Action(1, forward, 3), *(Action(1, forward, j) for j in range(3))]
    table = table_of(Program("forward", 2, 4, (tuple(first), tuple(second))))
    found = bounded(table, np.ones((2, 4)), of_one_size(table, 1.0))
    assert found.ends[0].tolist() == [1, 2, 3, 4]
    assert not found.held[0].any()


@settings(deadline=None, max_examples=60)
@given(built_in(6, 8) | anything_valid(), st.integers(0, 2**32), st.sampled_from([1.0, 2.0, 1e9]))
def test_less_room_never_makes_a_step_shorter_and_never_stops_it(found: Program, seed: int, room: float) -> None:
    table = apart(table_of(found))
    times = np.random.default_rng(seed).integers(1, 9, (table.n_stages, 4)) / 4
    plain, rooms = on_the_clock(table, times), of_one_size(table, room)
    timed = bounded(table, times, rooms)
    assert all((a >= b).all() for a, b in zip(timed.ends, plain.ends, strict=True))
    held = sum(float(worker.sum()) for worker in timed.held)
    if not rooms.may_be_short(table, plain.starts, plain.ends):
        assert held == 0
        assert all((a == b).all() for a, b in zip(timed.ends, plain.ends, strict=True))
    assert room < 1e9 or held == 0


@pytest.mark.parametrize(("schedule", "waits"), [("looped-bfs", True), ("1f1b", False)])
def test_a_plan_predicts_that_large_arrays_far_ahead_wait_for_room(schedule: str, *, waits: bool) -> None:
    """A link has room for two large arrays, and looped-bfs sends a whole step's."""
    blueprint = _plan(schedule)
    times = estimated_times(blueprint.spec, cores=2)
    step, free = (predicted_step(blueprint, replace(times, bounded_links=bound)) for bound in (True, False))
    assert (step.by_cause["send"] > 1.5 * free.by_cause["send"]) == waits
    assert (step.seconds > 1.1 * free.seconds) == waits
    assert sum(step.by_cause[cause] for cause in CAUSES) == pytest.approx(step.seconds)
    assert 0 < free.bubble.total <= step.bubble.total < 1


def _plan(schedule: str) -> Blueprint:
    document = digits_job().document()
    document["model"]["layers"] = [{"linear": {"units": 1024}}] * 7 + [{"linear": {"units": 10}}]
    document["training"] |= {"batch_size": 16 * 1024, "micro_batches": 16}
    document["pipeline"] = {"stages": 4 if schedule == "looped-bfs" else 2, "workers": 2, "schedule": schedule}
    return make_blueprint(parse_job(document), 16 * 1024)
