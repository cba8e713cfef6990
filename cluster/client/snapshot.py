"""The class JobSnapshot: the facts of a job in one answer of the service."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from cluster.client.html import facts_html
from cluster.client.streams import ENDED
from cluster.wire import pipetrain_pb2 as pb
from cluster.wire.convert import iso, moment, state_name
from coordinator.texts import number, share


class JobSnapshot:
    """The facts of a job in the last answer about it. `Job` adds the calls."""

    def __init__(self, message: pb.Job) -> None:
        self._message = message

    @property
    def id(self) -> str:
        """The job's whole id."""
        return self._message.id

    @property
    def name(self) -> str:
        """The name from the job file, or the one given when the job was submitted."""
        return self._message.name

    @property
    def state(self) -> str:
        """QUEUED, STARTING, RUNNING, RECOVERING, SUCCEEDED, FAILED or STOPPED."""
        return state_name(self._message.state)

    @property
    def done(self) -> bool:
        """Whether the job has ended. It never changes after that."""
        return self.state in ENDED

    @property
    def reason(self) -> str:
        """The reason for the state, such as what the job waits for, or the first cause of a failure. May be empty."""
        return self._message.reason

    @property
    def attempt(self) -> int:
        """The number of the present attempt, from 1; 0 before the first one."""
        return self._message.attempt

    @property
    def step(self) -> int:
        """The number of steps done in this attempt."""
        return self._message.step

    @property
    def steps_total(self) -> int | None:
        """The number of steps of the whole job; None until its data was read."""
        return self._optional_count("steps_total")

    @property
    def loss(self) -> float | None:
        """The mean training loss over the rows of the present epoch so far; a loss that is a sum is given per row."""
        return self._optional("loss")

    @property
    def validation_loss(self) -> float | None:
        """The mean loss over the validation rows in the last evaluation; a loss that is a sum is given per row."""
        return self._optional("validation_loss")

    @property
    def validation_accuracy(self) -> float | None:
        """The share of validation rows that were classified correctly, from 0 to 1; None if the job is no
        classifier."""
        return self._optional("validation_accuracy")

    @property
    def validation_perplexity(self) -> float | None:
        """The perplexity in the last evaluation; None unless the job is on text."""
        return self._optional("validation_perplexity")

    @property
    def validation_bits_per_byte(self) -> float | None:
        """The bits that the network needs for a byte of the validation text, in the last evaluation; None unless the
        job is on text."""
        return self._optional("validation_bits_per_byte")

    @property
    def submitted_at(self) -> datetime:
        """When the service accepted the job, UTC."""
        return moment(self._message.submitted_at)

    @property
    def started_at(self) -> datetime | None:
        """When the job was first started, UTC; None before."""
        seconds = self._optional("started_at")
        return None if seconds is None else moment(seconds)

    @property
    def ended_at(self) -> datetime | None:
        """When the job ended, UTC; None before."""
        seconds = self._optional("ended_at")
        return None if seconds is None else moment(seconds)

    @property
    def priority(self) -> int:
        """The priority. Jobs of a higher one start first."""
        return self._message.priority

    @property
    def queue_position(self) -> int | None:
        """The job's place in the queue, from 1; None unless it is QUEUED."""
        return self._optional_count("queue_position")

    @property
    def queue_length(self) -> int | None:
        """The number of QUEUED jobs, including this one; None unless it is QUEUED."""
        return self._optional_count("queue_length")

    @property
    def submission_id(self) -> str:
        """The id of the submission. Submitting again with it returns this job and makes no new one."""
        return self._message.submission_id

    @property
    def workers(self) -> int:
        """The number of worker processes."""
        return self._message.workers

    @property
    def cpus(self) -> int:
        """The CPUs that all workers reserve together."""
        return self._message.cpus

    @property
    def memory(self) -> int:
        """The bytes that all workers reserve together; 0 if the job sets no memory limit."""
        return self._message.memory

    @property
    def exit_code(self) -> int | None:
        """The exit code of a command that follows the job: 0 succeeded, 1 failed, 2 failed because of a mistake in the
        job or its data, 130 stopped, 3 stopped without a checkpoint of its last steps; None before it has ended."""
        return self._optional_count("exit_code")

    @property
    def model_saved(self) -> bool:
        """Whether the job has saved a model, which `fetch` can download."""
        return self._message.model_saved

    @property
    def document(self) -> dict[str, Any]:
        """The job file as a dict, with all defaults; empty in a job from `Client.list` that was not refreshed."""
        text = self._message.document
        return dict(json.loads(text)) if text else {}

    @property
    def files(self) -> dict[str, str]:
        """The uploaded files: the path in the job, and the SHA-256 of the content uploaded for it."""
        return dict(self._message.files)

    @property
    def traceback(self) -> str:
        """The traceback of a failure's first cause if a stage raised it; empty otherwise."""
        return self._message.traceback

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object that `--json` prints: always the same keys, times in ISO 8601 UTC, null for values
        that are not known."""
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "reason": self.reason,
            "attempt": self.attempt,
            "step": self.step,
            "steps_total": self.steps_total,
            "loss": self.loss,
            "validation_loss": self.validation_loss,
            "validation_accuracy": self.validation_accuracy,
            "validation_perplexity": self.validation_perplexity,
            "validation_bits_per_byte": self.validation_bits_per_byte,
            "submitted_at": iso(self.submitted_at),
            "started_at": iso(self.started_at),
            "ended_at": iso(self.ended_at),
            "exit_code": self.exit_code,
            "model_saved": self.model_saved,
            "priority": self.priority,
            "queue_position": self.queue_position,
            "queue_length": self.queue_length,
            "submission_id": self.submission_id,
            "workers": self.workers,
            "cpus": self.cpus,
            "memory": self.memory,
        }

    def __repr__(self) -> str:
        of = "" if self.steps_total is None else f" of {self.steps_total}"
        loss = "" if self.loss is None else f", loss {self.loss:.4g}"
        reason = f": {self.reason}" if self.reason else ""
        return f"<Job {self.id} {self.name}: {self.state} at step {self.step}{of}{loss}{reason}>"

    def _repr_html_(self) -> str:
        of = "" if self.steps_total is None else f" of {self.steps_total}"
        return facts_html(
            [
                ("job", f"{self.id} · {self.name}"),
                ("state", f"{self.state}: {self.reason}" if self.reason else self.state),
                ("step", f"{self.step}{of}"),
                ("mean loss", number(self.loss, "")),
                ("validation loss", number(self.validation_loss, "")),
                ("validation accuracy", share(self.validation_accuracy, 2, "")),
                ("validation perplexity", number(self.validation_perplexity, "")),
                ("validation bits/byte", number(self.validation_bits_per_byte, "")),
                ("submitted", f"{self.submitted_at:%Y-%m-%d %H:%M:%S} UTC"),
            ]
        )

    def _optional(self, name: str) -> float | None:
        value: float | None = getattr(self._message, name) if self._message.HasField(name) else None
        return value

    def _optional_count(self, name: str) -> int | None:
        value: int | None = getattr(self._message, name) if self._message.HasField(name) else None
        return value
