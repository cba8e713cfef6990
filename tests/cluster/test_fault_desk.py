"""Which loss of a worker is a fault on request, and which requests a run takes."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.actors.fault_marks import claim
from cluster.actors.ray_workers import RayWorkers
from cluster.run.fault_desk import FaultDesk, put_request
from cluster.run.run_dir import RunDir
from coordinator.chaos.requests import FaultRequest
from coordinator.plan.blueprint import make_blueprint
from coordinator.run_files import FAULT_REQUEST
from stages.errors import WorkerLost
from stages.orders import Fault
from tests.jobs import digits_job

KILL = Fault(what="kill", step=3, id="k")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDir]:
    with contextlib.closing(RunDir.create(tmp_path / "run", digits_job())) as run_dir:
        yield run_dir


def desk(run: RunDir, said: list[str], **faults: Fault) -> FaultDesk:
    blueprint = make_blueprint(digits_job(), 1438)
    workers: Any = None
    planned = {int(worker[1:]): fault for worker, fault in faults.items()}
    return FaultDesk(run, blueprint, workers, train_rows=1438, validation_rows=0, planned=planned, warn=said.append)


def events(run: RunDir) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]


def test_a_loss_is_that_of_the_fault_which_struck_this_worker_once(run: RunDir) -> None:
    said: list[str] = []
    one = desk(run, said, w1=KILL, w2=KILL)
    assert one.cause_of(1) is None
    for worker in (2, 1):
        claim(run.path, worker, KILL, 3, "1F0", ())
    found = one.cause_of(1)
    assert found is not None
    assert (found.worker, found.id) == (1, "k")
    assert one.cause_of(1) is None, "another loss of the worker is not the same fault"
    one.replaced({1, 2})
    assert one.cause_of(2) is None, "it was replaced together with the other"
    assert said == ["chaos: kill of worker 2 before 1F0 of step 3", "chaos: kill of worker 1 before 1F0 of step 3"]
    assert [event["worker"] for event in events(run) if event["event"] == "fault"] == [2, 1]
    again = desk(run, said, w1=KILL)
    again.record_struck()
    assert len(said) == 2, "what an earlier attempt told is not told again"


def test_a_worker_that_is_cut_off_explains_the_loss_of_another_but_a_slow_one_does_not(run: RunDir) -> None:
    one = desk(run, [], w0=KILL)
    claim(run.path, 0, Fault(what="slow", step=2, id="s"), 2, "0F0", ())
    assert one.cause_of(0) is None
    claim(run.path, 0, Fault(what="partition", step=3, id="p"), 3, "0F0", ())
    found = one.cause_of(2)
    assert found is not None
    assert found.id == "p"


class DyingWorkers(RayWorkers):
    """Workers that die when a fault is planned: of the fault, or before they know of it."""

    def __init__(self, run: RunDir, *, of_the_fault: bool) -> None:
        self._run, self._of_the_fault = run, of_the_fault

    def plan_fault(self, worker: int, fault: Fault) -> int | None:
        if self._of_the_fault:
            claim(self._run.path, worker, fault, 7, "1B1", ())
        raise WorkerLost(f"worker {worker} died while planning a fault: of something")


@pytest.mark.parametrize("of_the_fault", [True, False])
def test_a_fault_that_strikes_before_the_worker_can_answer_was_planned(run: RunDir, of_the_fault: bool) -> None:
    said: list[str] = []
    workers = DyingWorkers(run, of_the_fault=of_the_fault)
    blueprint = make_blueprint(digits_job(), 1438)
    one = FaultDesk(run, blueprint, workers, train_rows=1438, validation_rows=0, planned=None, warn=said.append)
    put_request(run.path, FaultRequest("r", "kill", 1, "1B1"))
    one.look(5)
    if of_the_fault:
        planned = "chaos: planned: kill of worker 1 before the next 1B1"
        assert said == [planned, "chaos: kill of worker 1 before 1B1 of step 7"]
    else:
        assert said == ["chaos: refused: worker 1 died while planning a fault: of something"]


def test_a_request_of_before_the_run_is_refused(run: RunDir) -> None:
    said: list[str] = []
    put_request(run.path, FaultRequest("r", "kill", 1))
    assert not put_request(run.path, FaultRequest("q", "kill", 1)), "one at a time"
    desk(run, said)
    assert said == ["chaos: refused: the request was made before the run began; make it again"]
    assert not (run.path / FAULT_REQUEST).exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", []),
        ('"kill"', []),
        ('{"id": "r"}', ["chaos: refused: the request is not one: "]),
        ('{"id": "r", "what": "raise", "worker": 0}', ["chaos: refused: 'raise' is no kind of fault; "]),
        ('{"id": "../r", "what": "kill", "worker": 0}', ["chaos: refused: id: must be "]),
        ('{"id": "r", "what": ["kill"], "worker": 0}', ["chaos: refused: ['kill'] is no kind of fault; "]),
        ('{"id": "r", "what": "kill", "worker": 0, "at": 5}', ["chaos: refused: '5' is not an action; "]),
        ('{"id": "r", "what": "kill", "worker": 0, "seconds": "x"}', ["chaos: refused: seconds and steps must be "]),
        ('{"id": "r", "what": "kill", "worker": 0, "step": 1.5}', ["chaos: refused: step: got 1.5, must be at least"]),
        ('{"id": "r", "what": "kill", "worker": 0}', ["chaos: refused: the workers are threads of one process"]),
    ],
)
def test_what_is_no_request_does_no_harm(run: RunDir, content: str, told: list[str]) -> None:
    said: list[str] = []
    one = desk(run, said)
    (run.path / FAULT_REQUEST).write_text(content)
    one.look(1)
    assert len(said) == len(told)
    assert all(line.startswith(start) for line, start in zip(said, told, strict=True))
    assert not (run.path / FAULT_REQUEST).exists()


def test_a_request_of_another_user_is_dropped(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    one = desk(run, said)
    put_request(run.path, FaultRequest("r", "kill", 1))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    one.look(1)
    assert said == []
    assert not (run.path / FAULT_REQUEST).exists()
