"""The records of jobs and their events in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coordinator.queue.job_queue import Needs
from coordinator.queue.job_states import Failed, State, Stopped, Succeeded
from coordinator.queue.state_texts import exit_code, reason


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job. Times are seconds UTC. `step` is the number of steps done in the present attempt.

    `samples_per_second` is the speed of the last steps, `best_validation_loss` the smallest of the present attempt.
    `resumed_from` is the job from whose checkpoint it goes on; "" for none. `preempt`: jobs of a lower priority make
    room for it. `events_read` is the number of bytes of events.jsonl that the store has. `remote`: it was submitted
    from another host.
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
    validation_perplexity: float | None = None
    validation_bits_per_byte: float | None = None
    best_validation_loss: float | None = None
    samples_per_second: float | None = None
    stages: int = 0
    schedule: str = ""
    batch_size: int = 0
    submitted_at: float
    started_at: float | None = None
    ended_at: float | None = None
    events: int = 0
    events_read: int = 0
    force: bool = False
    remote: bool = False
    preempt: bool = False
    resumed_from: str = ""
    runner_pid: int | None = None

    @property
    def reason(self) -> str:
        """Why the job is in its state. The queue gives the reason of a queued job."""
        return reason(self.state)

    @property
    def exit_code(self) -> int | None:
        """The exit code of a command that follows the job; None until it has ended."""
        return exit_code(self.state)

    @property
    def model_saved(self) -> bool:
        """Whether the run directory has the weights."""
        return isinstance(self.state, Succeeded) or (isinstance(self.state, Stopped) and self.state.saved)

    @property
    def traceback(self) -> str:
        """The traceback of the failure's first cause; "" if there is none."""
        return self.state.traceback if isinstance(self.state, Failed) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDocument:
    """The submitted job as JSON, and the SHA-256 of each uploaded file by its path in the job."""

    document: str
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """An event of a job. `seq` is its number within the job, from 1."""

    seq: int
    time: float
    kind: str
    attempt: int
    text: str
    details: Mapping[str, Any]
