"""Bytes of the memory between workers of one host; the comments work them out by hand."""

from __future__ import annotations

from typing import Any

from coordinator.job.spec import parse_job
from coordinator.plan.blueprint import Blueprint, make_blueprint
from coordinator.plan.link_room import link_room


def _blueprint(units: int, rows: int, pipeline: dict[str, Any], layers: list[Any] | None = None) -> Blueprint:
    spec = parse_job(
        {
            "model": {
                "input": [8], "layers": layers or [{"linear": {"units": units}}] * 4, "loss": "sum_of_squares",
            },
            "data": {"source": "digits"},  # not read
            "training": {
                "epochs": 1, "batch_size": 4 * rows, "micro_batches": 4, "optimizer": {"sgd": {"learning_rate": 0.1}},
            },
            "pipeline": {"stages": 4, **pipeline},
        }
    )  # fmt: skip
    return make_blueprint(spec, 4 * rows)


def test_neighbours_have_a_link_each_way() -> None:
    room = link_room(_blueprint(64, 16, {}))
    assert set(room) == {(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)}
    assert set(room.values()) == {2 * 4 * 64 * 16 * 4}, "two steps of four arrays, 64 by 16 numbers of 4 bytes"


def test_large_arrays_have_room_for_two() -> None:
    array = 1024 * 256 * 4
    assert set(link_room(_blueprint(1024, 256, {})).values()) == {2 * array}
    assert set(link_room(_blueprint(1024, 96, {})).values()) == {2**20}, "384 KiB each: two, and what is left of 1 MiB"


def test_stages_of_one_worker_have_no_link() -> None:
    room = link_room(_blueprint(64, 16, {"schedule": "interleaved-1f1b", "workers": 2}))
    assert set(room) == {(0, 1), (1, 0)}
    assert link_room(_blueprint(64, 16, {"workers": 1, "schedule": "gpipe"})) == {}
