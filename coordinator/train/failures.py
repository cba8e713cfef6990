"""Finds the one error that names the first cause among the failures of all workers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from coordinator.program.drawing import draw
from coordinator.program.replay import clock_spans
from stages.actions import Action, Program
from stages.errors import FailurePlace, JobFailed, NonFinite, StageFailed, WorkerHung
from stages.orders import Failure
from stages.progress import Doing, Seen

_Loss = Literal["process", "memory", "node"]


class Death(NamedTuple):
    """The end of a worker's process. `loss`: what took it, see WorkerLost."""

    worker: int
    loss: _Loss


_RANK = {
    "node": 0,
    "memory": 1,
    "raised": 2,
    "non_finite": 2,
    "process": 3,
    "connection": 4,
    "timeout": 5,
    "closed": 6,
}
"""What can be the cause of the others comes before them: the loss of a host takes its workers with it, an exception of
the computation is its own cause, and the rest are mostly echoes of a death."""


def is_echo(one: Failure | Death) -> bool:
    """Whether it is mostly the consequence of another failure."""
    return isinstance(one, Failure) and _RANK[one.kind] > _RANK["process"]


def first_of(found: Iterable[Failure | Death], program: Program) -> Failure | Death:
    """Return the one that can explain the others, whatever the order in which they came; of several, the one that
    belongs to the earliest place of the run."""
    starts = {action: start for lane in clock_spans(program, lambda _: 1.0) for action, start, _ in lane}

    def order(one: Failure | Death) -> tuple[float, ...]:
        if isinstance(one, Death):
            return _RANK[one.loss], 0, 0, 0, one.worker
        start = math.inf if one.action is None else starts.get(one.action, math.inf)  # None: such as the update
        return _RANK[one.kind], one.step or 0, one.evaluating, start, one.worker

    return min(found, key=order)


def first_cause(failures: Iterable[Failure], program: Program) -> JobFailed:
    """Return the error of the failure that can explain the others."""
    failure = first_of(failures, program)
    assert isinstance(failure, Failure), "there are no others"
    error = _error_of(failure, program)
    action = None if failure.action is None or failure.evaluating else str(failure.action)
    error.place = FailurePlace(failure.worker, failure.step, action, failure.evaluating)
    return error


def picture(program: Program, worker: int, seen: Mapping[int, Seen]) -> str:
    """Return the drawing of a step in which `worker` was lost: where all workers were when they were last seen."""
    mark: dict[Action, str] = {}
    for w, one in seen.items():
        if one.action is not None and not one.evaluating and one.action in program.lanes[w]:
            waits = f"waits for worker {one.peer}" if one.doing is Doing.WAITING else one.doing.value
            mark[one.action] = "last seen here" if w == worker else waits
    return draw(program, mark=mark, notes={worker: "lost"})


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
