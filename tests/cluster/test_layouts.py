"""The layouts of one run, with workers that are none: what is tried, and what is told."""

from __future__ import annotations

import socket
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.actors import ray_room
from cluster.actors.ray_room import Placing, room_for_workers
from cluster.actors.ray_workers import RayWorkers
from cluster.actors.reaching import CutOffNodes
from cluster.checkpoints.folder import NO_STATE
from cluster.data.sources import load_data
from cluster.run.elastic import Layouts
from cluster.run.recovering import Recovery
from coordinator.checkpoints.position import Position
from coordinator.job.spec import parse_job
from coordinator.plan.blueprint import Blueprint
from coordinator.plan.layout import lay_out
from coordinator.train.workers import WorkerPlace
from stages.errors import FailurePlace, JobFailed, NoRoom, NotEnoughResources, WorkerLost
from tests.jobs import digits_job


class _Workers(RayWorkers):
    """Workers in a cluster whose room is `rooms[0]` now, and later the others; `errors` come of the next tries."""

    def __init__(self, *rooms: int, errors: list[Exception] | None = None) -> None:
        self.rooms, self.errors = list(rooms), list(errors or [])
        self.laid_out: list[int] = []
        self.began: list[object] = []
        self.cut_off: Any = SimpleNamespace(now=frozenset)

    def room(self) -> int:
        return self.rooms.pop(0) if len(self.rooms) > 1 else self.rooms[0]

    def lay_out(self, blueprint: Blueprint, states: object, within_s: float, since: object = None) -> None:
        self.began.append(since)
        self.laid_out.append(blueprint.n_workers)
        if self.errors:
            raise self.errors.pop(0)

    def places(self) -> list[WorkerPlace]:
        return [WorkerPlace(0, "b7", "n", 1)]


class _Told:
    def __init__(self, own: _Workers, *, most: int | None = None, waits: bool = False, **pipeline: object) -> None:
        document = digits_job().document()
        document["pipeline"] = pipeline
        self.now = 0.0
        self.events: list[dict[str, Any]] = []
        self.slept: list[float] = []
        spec = parse_job(document)
        data = load_data(spec)
        self.blueprint = lay_out(spec, len(data.train), 3)
        self.layouts = Layouts(
            *(spec, data, self.blueprint, own),
            most=most,
            waits=waits,
            give_up=lambda: False,
            on_change=self._change,
            record=lambda blueprint, **details: self.events.append(details),
            clock=lambda: self.now,
            sleep=self.slept.append,
        )

    def _change(self, blueprint: Blueprint) -> None:
        self.blueprint = blueprint


def test_the_run_is_laid_out_on_the_room_that_is_left_and_tells_why() -> None:
    told = _Told(_Workers(2), stages=3)
    assert told.layouts.shrink("node b7 left", NO_STATE)
    (event,) = told.events
    assert (event["before"], event["workers"], event["stages"]) == ({"workers": 3, "stages": 3}, 2, 3)
    assert event["why"] == "node b7 left"
    assert event["placement"] == list(told.blueprint.program.placement)
    assert told.blueprint.n_workers == 2


def test_if_somebody_else_was_faster_the_room_is_asked_for_again() -> None:
    workers = _Workers(2, 1, errors=[NotEnoughResources("taken")])
    told = _Told(workers, stages=3)
    assert told.layouts.shrink("a node left", NO_STATE)
    assert workers.laid_out == [2, 1]
    assert told.events[0]["workers"] == 1


def test_a_job_with_both_numbers_or_without_any_room_is_not_laid_out_anew() -> None:
    for told in (_Told(_Workers(2), stages=3, workers=3), _Told(_Workers(0), stages=3)):
        assert not told.layouts.shrink("a node left", NO_STATE)
        assert told.events == []


def test_workers_that_do_not_start_are_tried_three_times_and_then_the_run_ends() -> None:
    errors: list[Exception] = [WorkerLost("worker 1 died") for _ in range(3)]
    for error in errors:
        assert isinstance(error, WorkerLost)
        error.place = FailurePlace(1)
    workers = _Workers(2, errors=errors)
    with pytest.raises(JobFailed) as failed:
        _Told(workers, stages=3).layouts.shrink("a node left", NO_STATE)
    assert workers.laid_out == [2, 2, 2]
    assert failed.value.place is None, "there is no worker that could be replaced"


def test_it_grows_a_minute_after_the_last_layout_and_never_beyond_what_it_may_have() -> None:
    workers = _Workers(2)
    told = _Told(workers, most=3, stages="auto")
    told.now = 10.0
    assert not told.layouts.wants_to_grow(), "it has all that it may have"
    assert told.layouts.shrink("a node left", NO_STATE)
    workers.rooms = [50]
    wanted = []
    for now in range(11, 400):
        told.now = float(now)
        if told.layouts.wants_to_grow():
            wanted.append(now)
    assert wanted[0] == pytest.approx(10 + 120, abs=2), "a change within the hour doubles the minute"
    told.layouts.grow(NO_STATE)
    assert told.blueprint.n_workers == 3
    assert told.events[-1]["why"] == "there is room for more"


def test_all_workers_move_if_one_is_cut_off_and_there_is_room_without_its_node() -> None:
    for rooms, cut_off, moves in [(3, {"n"}, True), (2, {"n"}, False), (3, {"another"}, False), (3, set[str](), False)]:
        workers = _Workers(rooms)
        workers.cut_off = SimpleNamespace(now=lambda cut_off=cut_off: frozenset(cut_off))
        assert _Told(workers, stages=3, workers=3).layouts.has_room_elsewhere() is moves
    workers = _Workers(3)
    told = _Told(workers, stages=3, workers=3)
    assert told.layouts.move("node b7 left", NO_STATE, [1.0, 2.0, 3.0])
    assert (workers.laid_out, workers.began) == ([3], [[1.0, 2.0, 3.0]])
    assert told.events == [], "the layout is the same"


def test_a_move_for_which_somebody_else_has_taken_the_room_becomes_a_smaller_layout_or_ends_the_run() -> None:
    workers = _Workers(2, errors=[NotEnoughResources("taken")])
    told = _Told(workers, stages=3)
    assert not told.layouts.move("node b7 left", NO_STATE, [1.0, 2.0, 3.0])
    assert (workers.laid_out, workers.began) == ([3, 2], [[1.0, 2.0, 3.0], None])
    assert told.events[0]["why"] == "node b7 left"
    workers = _Workers(2, errors=[NotEnoughResources("the room is taken")])
    with pytest.raises(JobFailed, match="the room is taken, after node b7 left"):
        _Told(workers, stages=3, workers=3).layouts.move("node b7 left", NO_STATE, None)


def test_a_move_for_which_the_whole_cluster_is_too_small_looks_again_after_a_while() -> None:
    workers = _Workers(2, errors=[NotEnoughResources("too small") for _ in range(3)])
    told = _Told(workers, waits=True, stages=3, workers=3)
    assert told.layouts.move("node b7 left", NO_STATE, None)
    assert workers.laid_out == [3] * 4
    assert len(told.slept) == 3
    assert min(told.slept) > 0


def test_a_run_whose_new_layout_did_not_start_starts_all_its_workers_when_there_is_room() -> None:
    tried: list[str] = []

    class Ended(_Workers):
        def replace(self, *_: object) -> list[WorkerPlace]:
            tried.append("replace")
            raise NoRoom("no room for worker 1")

        def lay_out(self, blueprint: Blueprint, states: object, within_s: float, since: object = None) -> None:
            tried.append(f"start {blueprint.n_workers}")
            self.addresses = []
            super().lay_out(blueprint, states, within_s, since)
            self.addresses = [SimpleNamespace()]  # type: ignore[list-item]

        def places(self) -> list[WorkerPlace]:
            return super().places() if self.addresses else []

    workers = Ended(2, 0, errors=[NotEnoughResources("taken")])
    workers.addresses = [SimpleNamespace()]  # type: ignore[list-item]
    told = _Told(workers, waits=True, stages=3)
    recovery = SimpleNamespace(_layouts=told.layouts, _since=None)
    assert Recovery._replaced(recovery, workers, Position(), NO_STATE, "node b7 left", moves=False)  # type: ignore[arg-type]
    assert tried == ["replace", "start 2", "start 3"]


def test_a_node_is_cut_off_until_it_takes_connections_again_or_ray_has_given_it_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        place = {"NodeManagerAddress": "127.0.0.1", "NodeManagerPort": listening.getsockname()[1]}
        beyond = {"NodeManagerAddress": "no.such.host.invalid", "NodeManagerPort": 1}
        nodes = [
            {"NodeID": "back", "Alive": True, **place},
            {"NodeID": "away", "Alive": True, **beyond},
            {"NodeID": "given up", "Alive": False, **beyond},
        ]
        cut_off = CutOffNodes(SimpleNamespace(nodes=lambda: nodes))
        assert cut_off.now() == frozenset()
        for node in ("back", "away", "given up"):
            cut_off.note(node)
        assert cut_off.now() == {"away"}
        nodes[1] |= place
        assert cut_off.now() == frozenset()


def _without_ray(patch: pytest.MonkeyPatch, module: str, **functions: Any) -> None:
    """Let imports of Ray's module find these functions: Ray itself must not be imported before a test starts it."""
    parts = module.split(".")
    for n in range(1, len(parts)):
        patch.setitem(sys.modules, ".".join(parts[:n]), SimpleNamespace())
    patch.setitem(sys.modules, module, SimpleNamespace(**functions))


def test_room_counts_nodes_that_are_alive_and_the_own_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"a": {"CPU": 1.0, "memory": 100.0}, "b": {"memory": 100.0}, "gone": {"CPU": 8.0, "memory": 900.0}}
    _without_ray(monkeypatch, "ray._private.state", available_resources_per_node=lambda: free)
    ray = SimpleNamespace(nodes=lambda: [{"NodeID": name, "Alive": name != "gone"} for name in free])
    assert room_for_workers(ray, {"CPU": 1, "memory": 40}, own=["b", "b", "gone"]) == 3
    assert room_for_workers(ray, {"CPU": 1, "memory": 40}, own=["b", "b"], except_on={"a"}) == 2
    assert room_for_workers(ray, {"CPU": 2}, own=["b", "gone"]) == 1
    assert room_for_workers(ray, {"CPU": 1, "memory": 101}) == 0


def test_the_wait_for_room_ends_after_its_time_or_if_the_run_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    table: dict[str, Any] = {"state": "RESCHEDULING", "bundles_to_node_id": {0: "a", 1: "", 2: "b"}}
    clock, stopped, waits = [100.0], [False], list[str]()
    _without_ray(monkeypatch, "ray.util.placement_group", placement_group_table=lambda group: table)
    monkeypatch.setattr(ray_room, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    placing = Placing("group", 60.0, lambda: stopped[0], waits.append)
    assert not placing.look()
    assert waits == ["waits for room for worker 1 in the cluster"]
    clock[0] = 159.0
    assert not placing.look()
    clock[0] = 160.0
    with pytest.raises(NoRoom, match="the cluster has had no room for worker 1 for 60 s"):
        placing.look()
    assert not placing.look(), "the next wait begins anew"
    stopped[0] = True
    with pytest.raises(NoRoom):
        placing.look()
    table["state"] = "CREATED"
    assert placing.look()
    stopped[0], cut_off = False, {"b"}
    placing = Placing("group", 60.0, lambda: stopped[0], waits.append, lambda: frozenset(cut_off))
    assert not placing.look(), "Ray has placed worker 2 on a node that is cut off"
    assert waits[-1] == "waits for room for worker 1, 2 in the cluster"
    cut_off.clear()
    assert placing.look()
