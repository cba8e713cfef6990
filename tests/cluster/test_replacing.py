"""Replacing a lost worker if Ray itself is lost: the run ends with that cause, and does not wait for a start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.actors.ray_workers import RayWorkers
from coordinator.train.recovery import loss_of
from stages.errors import JobFailed


def test_no_worker_is_waited_for_if_no_node_is_left() -> None:
    waits: list[float] = []

    def wait(refs: list[Any], *, num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        waits.append(timeout)
        return [], refs

    workers: Any = object.__new__(RayWorkers)
    workers._require_time = lambda: None
    workers._placing = SimpleNamespace(look=lambda: True)
    nodes = [[{"Alive": True}], [{"Alive": False}, {"Alive": True}], [{"Alive": False}]]
    workers._ray = SimpleNamespace(wait=wait, nodes=lambda: nodes.pop(0), exceptions=None)
    with pytest.raises(JobFailed, match="Ray was lost: no node of its cluster is alive") as lost:
        workers._plain(["call"], "starting")
    assert waits == [1.0, 1.0, 1.0]
    assert loss_of(lost.value, 3) is None, "it is not tried again"
