"""Every kind of fault at every kind of point of every schedule: no trace in weights and rows. Only `--slow` runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.run.training import Run, Where
from coordinator.chaos.requests import KINDS
from coordinator.chaos.story import STRUCK
from coordinator.job.spec import JobSpec
from coordinator.schedules import SCHEDULES
from coordinator.train.story import CAUGHT_UP, LOST
from stages.actions import Program
from stages.orders import Fault, FaultKind
from tests.cluster.test_resume import LOCAL, results
from tests.faults.test_chaos import text_job
from tests.faults.test_recovery import events, on_ray, train

__all__ = ["on_ray"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
_STAGES = 4
_FULL = (4, 7, 11, 14, 16, 20, 23, 25)  # steps with all micro-batches
_EVALUATED = (7, 14, 21, 28)
_SAVED = tuple(range(3, 30, 3))


def point(program: Program, worker: int, kind: str) -> str | None:
    """Return an action of the kind in the middle of the worker's lane, or the point itself; None if it has none."""
    if len(kind) > 1:
        return kind
    own = [str(action) for action in program.lanes[worker] if action.kind == kind]
    return own[len(own) // 2] if own else None


def _job(folder: Path, schedule: str) -> JobSpec:
    job = text_job(folder, schedule if schedule != "dualpipev" else "1f1b", _STAGES)
    if schedule == "dualpipev":  # needs at least four micro-batches in every step
        return job.replace(training__batch_size=12, training__micro_batches=4, schedule=schedule)
    return job


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Callable[[JobSpec], Any]:
    """Return the results of a job without faults, which follow from its batches, not from its schedule."""
    known: dict[int, Any] = {}

    def of(spec: JobSpec) -> Any:
        micro_batches = spec.training.micro_batches
        if micro_batches not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            train(folder / "run", spec.replace(schedule="1f1b", stages=1), LOCAL)
            known[micro_batches] = results(folder / "run")
        return known[micro_batches]

    return of


@pytest.mark.parametrize("at", ["F", "B", "I", "W", "update", "evaluation", "checkpoint"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_no_fault_leaves_a_trace(tmp_path: Path, on_ray: Where, expected: Any, schedule: str, at: str) -> None:
    """All kinds of faults strike one run, one after another; a damaged checkpoint is wanted in the next step."""
    spec = _job(tmp_path, schedule)
    program = Run.prepare(spec, on_ray).blueprint.program
    steps = {"evaluation": _EVALUATED, "checkpoint": _SAVED}.get(at, _FULL)
    faults: dict[int, list[Fault]] = {}
    for number, kind in enumerate(KINDS):
        worker = number % program.n_workers
        action = point(program, worker, at)
        if action is None:
            pytest.skip(f"{schedule} has no {at} in worker {worker}")
        own = faults.setdefault(worker, [])
        step = steps[number % len(steps)]
        what: FaultKind = kind  # type: ignore[assignment]
        own.append(Fault(what=what, step=step, action=action, seconds=0.01))
        if kind == "corrupt":
            own.append(Fault(what="kill", step=step + 1))
    train(tmp_path / "run", spec, on_ray, faults)
    assert results(tmp_path / "run") == expected(spec)
    struck = {(event["worker"], event["kind"]) for event in events(tmp_path / "run", STRUCK)}
    assert struck == {(worker, fault.what) for worker, own in faults.items() for fault in own}
    assert {event["fault"] is not None for event in events(tmp_path / "run", LOST)} == {True}
    assert all(event["identical"] for event in events(tmp_path / "run", CAUGHT_UP))
