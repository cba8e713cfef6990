"""Stragglers are told in the run's events, to whoever follows, and in `describe`."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cluster.run.run_dir import RunDir
from cluster.run.straggling import StragglerNotes
from cluster.service.run_events import text
from coordinator.train.workers import WorkerPlace
from stages.ledger import STAGE_KINDS, WORKER_KINDS, Account
from tests.jobs import digits_job


def _row(step: int, *seconds: float) -> Any:
    def report(worker: int, computing: float) -> Any:
        row = (computing, *(0.0,) * (len(STAGE_KINDS) - 1))
        return SimpleNamespace(account=Account(0.0, 1.0, {worker: row}, (0.0,) * len(WORKER_KINDS)))

    reports = [report(worker, one) for worker, one in enumerate(seconds)]
    return SimpleNamespace(step=step, samples=64, seconds=1.0, reports=reports)


def test_a_straggler_is_told_once_and_again_when_its_process_is_as_quick_as_usual(tmp_path: Path) -> None:
    places = [WorkerPlace(0, "here", "n0", 10), WorkerPlace(1, "there", "n1", 11)]
    workers: Any = SimpleNamespace(places=lambda: places)
    told: list[str] = []
    run_dir = RunDir.create(tmp_path / "run", digits_job())
    notes = StragglerNotes(workers, 64, run_dir, told.append)
    for step in range(1, 200):
        notes.row(_row(step, 0.1, 0.6 if 80 <= step < 140 else 0.2))
    run_dir.close()
    found = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [(event["event"], event["worker"], event["host"]) for event in found] == [
        ("straggler", 1, "there"),
        ("straggler over", 1, "there"),
    ]
    assert [text(event) for event in found] == told
    assert "3.0 × its usual 200 ms" in told[0]


def test_a_replaced_worker_has_no_history_and_threads_are_not_watched(tmp_path: Path) -> None:
    places = [WorkerPlace(0, "here", "n0", 10), WorkerPlace(1, "there", "n1", 11)]
    workers: Any = SimpleNamespace(places=lambda: places)
    told: list[str] = []
    run_dir = RunDir.create(tmp_path / "run", digits_job())
    notes = StragglerNotes(workers, 64, run_dir, told.append)
    for step in range(1, 80):
        notes.row(_row(step, 0.1, 0.2))
    places[1] = WorkerPlace(1, "there", "n1", 12)
    notes.go_on()
    for step in range(80, 200):
        notes.row(_row(step, 0.1, 0.6))
    threads = StragglerNotes(SimpleNamespace(places=tuple), 64, run_dir, told.append)
    for step in range(1, 200):
        threads.row(_row(step, 0.1, 0.2 if step < 80 else 0.9))
    run_dir.close()
    assert told == []


def test_a_replaced_worker_that_is_slower_than_its_plan_is_told_by_the_plan(tmp_path: Path) -> None:
    places = [WorkerPlace(0, "here", "n0", 10), WorkerPlace(1, "there", "n1", 11)]
    workers: Any = SimpleNamespace(places=lambda: places)
    told: list[str] = []
    run_dir = RunDir.create(tmp_path / "run", digits_job())
    notes = StragglerNotes(workers, 64, run_dir, told.append, planned=lambda: (0.02, 0.04))
    for step in range(1, 80):
        notes.row(_row(step, 0.1, 0.2))
    places[1] = WorkerPlace(1, "there", "n1", 12)
    notes.go_on()
    for step in range(80, 200):
        notes.row(_row(step, 0.1, 0.6))
    run_dir.close()
    assert len(told) == 1
    assert "it computes 600 ms a step, 3.0 × the 200 ms of its plan at the pace of the others" in told[0]
