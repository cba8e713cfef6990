"""Finds the one error that names the first cause among the failures of all workers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coordinator.program.drawing import draw
from stages.actions import Program
from stages.errors import FailurePlace, JobFailed, NonFinite, StageFailed, WorkerHung
from stages.orders import Failure

_RANK = {"raised": 0, "non_finite": 0, "timeout": 1, "closed": 2}
"""Kinds that can be a cause rank before those that are usually echoes."""


def first_cause(failures: Iterable[Failure], program: Program) -> JobFailed:
    """Return the error of the failure that can explain the others; of several, the one given first."""
    failure = min(failures, key=lambda failure: _RANK[failure.kind])
    error = _error_of(failure, program)
    action = None if failure.action is None or failure.evaluating else str(failure.action)
    error.place = FailurePlace(failure.worker, failure.step, action, failure.evaluating)
    return error


def _error_of(failure: Failure, program: Program) -> JobFailed:
    where = _where(failure)
    if failure.kind == "non_finite":
        return NonFinite(f"{failure.message} [{where}]")
    if failure.kind in ("timeout", "closed"):
        return WorkerHung(f"{where} {failure.message}, and no worker reported a cause")
    picture = ""
    if failure.action is not None and failure.action in program.lanes[failure.worker]:
        picture = "\n" + draw(program, mark={failure.action: "failed here"})
    error = StageFailed(f"{where}: {failure.message}", failure.traceback + picture)
    error.mistake = failure.mistake
    return error


def place_of(worker: int, program: Program, process: str = "") -> str:
    """Return how an error names a worker; `process` adds details such as its process id and host."""
    stages = [s for s, w in enumerate(program.placement) if w == worker]
    held = f"stage{'s' * (len(stages) > 1)} {', '.join(map(str, stages))}"
    return f"worker {worker} ({'; '.join(filter(None, (held, process)))})"


def _where(failure: Failure) -> str:
    parts: Sequence[str] = [f"worker {failure.worker}"]
    if failure.host:
        parts = [*parts, f"on {failure.host}"]
    if failure.action is not None:
        parts = [f"stage {failure.action.stage},", *parts, f"in {failure.action}"]
    return " ".join(parts) + failure.when
