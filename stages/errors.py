"""Every error that a user can meet.

PipetrainError
├── UserMistake            exit 2: one line a problem, no traceback
│   ├── InvalidJob         the job file; carries every problem at once
│   ├── InvalidData        a source that cannot be read or does not fit the model
│   ├── InvalidSchedule    a program with a gap, a cycle or a doubled action; carries the drawn grid
│   ├── NotEnoughResources too little memory, too few CPUs, or no cluster
│   ├── NoService          the job service does not answer, or does not know the caller
│   ├── UnknownJob         no job, or more than one, matches the id or name; the message suggests similar ones
│   └── Refused            the job service refuses a request: the queue is full, the job has not ended, …
├── StoppedEarly           exit 130: stopped by a signal while the workers were being started
├── GraceOver              exit 3: a stopped run was not done within its grace
└── JobFailed              exit 1: the first cause, not its echoes
    ├── StageFailed        an action raised; carries stage, worker, action, original traceback
    ├── WorkerLost         a worker process died, or its host cannot be reached
    ├── WorkerHung         a worker made no progress within its limit
    ├── LinkLost           nothing arrives from one host's worker at another's, though both live
    ├── NoRoom             the cluster has lost the room of a worker
    ├── NonFinite          a value became NaN or infinite; carries layer, step, micro-batch
    ├── HostFailed         the machine: no space on the device, no memory, the run directory deleted
    └── UnexpectedError    a bug, ours or a library's; carries the original traceback

Exit codes are also set in `main` of cluster/cli/__init__.py (Ctrl-C, errors of the operating system) and in `exit_code`
of coordinator/queue/job_states.py (commands that follow a job of the service).
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal


class PipetrainError(Exception):
    """Base of every error that pipetrain raises on purpose. `exit_code` is the exit code of the command."""

    exit_code = 1


class UserMistake(PipetrainError):
    """A mistake that the user can correct; shown as one line a problem."""

    exit_code = 2

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each problem."""
        return tuple(str(self).splitlines())


class InvalidJob(UserMistake):
    """The job file is wrong. `problems` has a line for each mistake, with its path, value and the right one."""

    def __init__(self, problems: Sequence[str]) -> None:
        self._problems = tuple(problems)
        super().__init__("\n".join(self._problems))

    def __reduce__(self) -> tuple[type[InvalidJob], tuple[tuple[str, ...]]]:
        return (type(self), (self._problems,))

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each mistake."""
        return self._problems


class InvalidData(UserMistake):
    """A data source is missing, unreadable, or does not fit the model."""


class InvalidSchedule(UserMistake):
    """A program breaks a law of pipelines. `grid` is a drawing of the program with the place marked."""

    def __init__(self, message: str, grid: str = "") -> None:
        super().__init__(message)
        self.grid = grid

    def __reduce__(self) -> tuple[type[InvalidSchedule], tuple[str, str]]:
        return (type(self), (str(self), self.grid))


class NotEnoughResources(UserMistake):
    """The cluster or a worker's memory cannot hold the job."""


class NoService(UserMistake):
    """The job service does not answer at its address, or does not accept the caller's token."""


class UnknownJob(UserMistake):
    """No job, or more than one, matches the given id, beginning of an id, or name."""


class Refused(UserMistake):
    """The job service understood the request and refuses it. The message says why and what would help."""


class StoppedEarly(PipetrainError):
    """The run was stopped while its workers were being started."""

    exit_code = 130


class GraceOver(PipetrainError):
    """A run that was stopped has not saved its state within the time that it had."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class FailurePlace:
    """Where a job failed. `step` counts from 1 and is None before the first step; if `evaluating`, it is the last step
    before the evaluation. `action` is None outside of a step."""

    worker: int
    step: int | None = None
    action: str | None = None
    evaluating: bool = False


class JobFailed(PipetrainError):
    """The job ended without finishing. The message names the first cause; `place` is None if no worker reported it."""

    place: FailurePlace | None = None
    found_s: float | None = None
    """At most so many seconds passed until it was found: since the last sign of life. None if that is not known."""
    traceback = ""
    """The original traceback, or a drawing that shows where all workers were; "" for none."""


class NoRoom(JobFailed):
    """A worker cannot be placed again, because its node is lost, and no other one has room."""


class StageFailed(JobFailed):
    """An action raised inside a worker. `traceback` is the original one, as text."""

    mistake = False
    """Whether it is the user's: another try would fail in the same way."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback

    def __reduce__(self) -> tuple[type[StageFailed], tuple[str, str]]:
        return (type(self), (str(self), self.traceback))


class WorkerLost(JobFailed):
    """A worker process ended unexpectedly, or cannot be reached. `loss` says what was lost: the process alone, the
    process because the host ran out of memory, its node, or the link to its host."""

    loss: Literal["process", "memory", "node", "link"] = "process"


class WorkerHung(JobFailed):
    """A worker made no progress within its limit, or did not answer."""


class LinkLost(JobFailed):
    """What a worker sends to a worker on another host does not arrive. Both live, and can be reached from here."""


class NonFinite(JobFailed):
    """A loss, an activation or a gradient became NaN or infinite."""


class HostFailed(JobFailed):
    """The machine cannot go on: no space left on the device, no memory, or the run directory is gone."""


class UnexpectedError(JobFailed):
    """An error that pipetrain does not expect. `traceback` is the original one."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback

    def __reduce__(self) -> tuple[type[UnexpectedError], tuple[str, str]]:
        return (type(self), (str(self), self.traceback))


def as_failure(error: Exception) -> dict[str, Any]:
    """Return the entries of a Failure about an exception that is being handled."""
    message, trace = message_and_trace(error)
    kind = "connection" if isinstance(error, ConnectionError | EOFError) else "raised"
    return {"kind": kind, "message": message, "trace": trace, "mistake": isinstance(error, UserMistake)}


def message_and_trace(error: Exception) -> tuple[str, str]:
    """Return the message and the traceback of an error that is being handled. A user's mistake needs none."""
    if isinstance(error, UserMistake):
        return str(error), ""
    return f"{type(error).__name__}: {error}", traceback.format_exc()
