"""A run that loses a worker replaces it, and ends with bitwise the weights and the rows of an undisturbed run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.run import connecting
from cluster.run.run_dir import RunDir
from cluster.run.training import Run, Where
from coordinator.job.spec import JobSpec, parse_job
from stages.orders import Fault
from tests.cluster.test_resume import results
from tests.jobs import digits_job

pytestmark = pytest.mark.timeout(400)


def job(checkpoint: int | None, **entries: Any) -> JobSpec:
    document = digits_job(stages=3).document()
    if checkpoint is not None:
        document["checkpoint"] = {"every_steps": checkpoint}
    return parse_job({**document, **entries})


def train(path: Path, spec: JobSpec, where: Where, faults: Mapping[int, Fault] | None = None) -> list[str]:
    """Train; return what was warned of."""
    warned: list[str] = []
    run = Run.prepare(spec, where, faults=faults)
    run_dir = RunDir.create(path, run.spec)
    run.warn = warned.append
    try:
        for _ in run.rows(run_dir):
            pass
    finally:
        run_dir.close()
    return warned


def events(path: Path, *kinds: str) -> list[Mapping[str, Any]]:
    found = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    return [event for event in found if event["event"] in kinds]


@pytest.fixture
def on_ray(ray: Any, monkeypatch: pytest.MonkeyPatch) -> Where:
    """The Ray of the session, as `train` uses its own."""
    monkeypatch.setattr(connecting, "ray_session", lambda *_, **__: contextlib.nullcontext(ray))
    return Where()


def test_a_killed_worker_is_replaced(tmp_path: Path, on_ray: Where) -> None:
    spec = job(5)
    train(tmp_path / "whole", spec, Where(local=True))
    warned = train(tmp_path / "run", spec, on_ray, {1: Fault(step=8, action="1B3", what="exit")})
    print(warned, events(tmp_path / "run", "worker lost", "recovered", "caught up"))
    assert results(tmp_path / "run") == results(tmp_path / "whole")
