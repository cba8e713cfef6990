"""What the service knows of a job, as it stands in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coordinator.queue.job_queue import Needs
from coordinator.queue.job_states import Failed, State, Stopped, Succeeded, exit_code, reason


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One job. Times are seconds UTC. `step` counts the steps done in the present attempt.

    `events_read` is how much of events.jsonl, in bytes, has been taken into the store. `remote`: it was submitted from
    another host.
    """

    id: str
    name: str
    submission_id: str
    priority: int
    order: int
    needs: Needs
    state: State
    attempt: int = 0
    step: int = 0
    steps_total: int | None = None
    loss: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    submitted_at: float
    started_at: float | None = None
    ended_at: float | None = None
    events: int = 0
    events_read: int = 0
    force: bool = False
    remote: bool = False
    runner_pid: int | None = None

    @property
    def reason(self) -> str:
        """Why it is in its state; a queued job's is the queue's to say."""
        return reason(self.state)

    @property
    def exit_code(self) -> int | None:
        """Of a command that follows the job."""
        return exit_code(self.state)

    @property
    def model_saved(self) -> bool:
        """Whether its weights are in the run directory."""
        return isinstance(self.state, Succeeded) or (isinstance(self.state, Stopped) and self.state.saved)

    @property
    def traceback(self) -> str:
        """Of the first cause of a failure."""
        return self.state.traceback if isinstance(self.state, Failed) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDocument:
    """The job that was submitted, as JSON, and the SHA-256 of each uploaded file by its path in it."""

    document: str
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """Something that happened to a job. `seq` counts from 1."""

    seq: int
    time: float
    kind: str
    attempt: int
    text: str
    details: Mapping[str, Any]
