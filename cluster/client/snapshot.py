"""What a job is at present: the facts of one answer of the service."""

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
    """A job as it stood when it was last asked for. `Job` can also do something with it."""

    def __init__(self, message: pb.Job) -> None:
        self._message = message

    @property
    def id(self) -> str:
        """Its whole id."""
        return self._message.id

    @property
    def name(self) -> str:
        """What the job file or its submitter calls it."""
        return self._message.name

    @property
    def state(self) -> str:
        """QUEUED, STARTING, RUNNING, RECOVERING, SUCCEEDED, FAILED or STOPPED."""
        return state_name(self._message.state)

    @property
    def done(self) -> bool:
        """Whether it has ended, and so never changes again."""
        return self.state in ENDED

    @property
    def reason(self) -> str:
        """Why it is in this state: what it waits for, the first cause of a failure. May be empty."""
        return self._message.reason

    @property
    def attempt(self) -> int:
        """Lives of its processes so far; 0 before the first."""
        return self._message.attempt

    @property
    def step(self) -> int:
        """Updates made in this attempt so far: the number of its last step."""
        return self._message.step

    @property
    def steps_total(self) -> int | None:
        """Steps of the whole job; None until its data was read."""
        return self._optional_count("steps_total")

    @property
    def loss(self) -> float | None:
        """Mean training loss of the last step."""
        return self._optional("loss")

    @property
    def validation_loss(self) -> float | None:
        """Mean loss over the validation rows, of the last evaluation."""
        return self._optional("validation_loss")

    @property
    def validation_accuracy(self) -> float | None:
        """Share of validation rows that are right, from 0 to 1; classifiers only."""
        return self._optional("validation_accuracy")

    @property
    def submitted_at(self) -> datetime:
        """When the service took it in, UTC."""
        return moment(self._message.submitted_at)

    @property
    def started_at(self) -> datetime | None:
        """When it was first admitted to the cluster, UTC."""
        seconds = self._optional("started_at")
        return None if seconds is None else moment(seconds)

    @property
    def ended_at(self) -> datetime | None:
        """When it ended, UTC."""
        seconds = self._optional("ended_at")
        return None if seconds is None else moment(seconds)

    @property
    def priority(self) -> int:
        """Larger goes first."""
        return self._message.priority

    @property
    def queue_position(self) -> int | None:
        """From 1; only while QUEUED."""
        return self._optional_count("queue_position")

    @property
    def queue_length(self) -> int | None:
        """Jobs that are QUEUED, this one too; only while QUEUED."""
        return self._optional_count("queue_length")

    @property
    def submission_id(self) -> str:
        """Submitting again with it gives this job, not another one."""
        return self._message.submission_id

    @property
    def workers(self) -> int:
        """Processes that hold its stages."""
        return self._message.workers

    @property
    def cpus(self) -> int:
        """CPUs of all workers together."""
        return self._message.cpus

    @property
    def memory(self) -> int:
        """Bytes of all workers together."""
        return self._message.memory

    @property
    def exit_code(self) -> int | None:
        """Of a command that follows it: 0 succeeded, 1 failed, 2 a mistake in job or data, 130 stopped; None before."""
        return self._optional_count("exit_code")

    @property
    def model_saved(self) -> bool:
        """Whether `fetch` has a model to give."""
        return self._message.model_saved

    @property
    def document(self) -> dict[str, Any]:
        """The resolved job, as in a job file; empty in a job from `Client.list` that was not refreshed."""
        text = self._message.document
        return dict(json.loads(text)) if text else {}

    @property
    def files(self) -> dict[str, str]:
        """Path in the job → SHA-256 of the content that was uploaded for it."""
        return dict(self._message.files)

    @property
    def traceback(self) -> str:
        """Of the first cause of a failure, where a stage raised it; empty otherwise."""
        return self._message.traceback

    def as_dict(self) -> dict[str, Any]:
        """The JSON object that `--json` prints: always the same keys, times in ISO 8601 UTC, null for what is not."""
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
                ("loss", number(self.loss, "")),
                ("validation loss", number(self.validation_loss, "")),
                ("validation accuracy", share(self.validation_accuracy, 2, "")),
                ("submitted", f"{self.submitted_at:%Y-%m-%d %H:%M:%S} UTC"),
            ]
        )

    def _optional(self, name: str) -> float | None:
        value: float | None = getattr(self._message, name) if self._message.HasField(name) else None
        return value

    def _optional_count(self, name: str) -> int | None:
        value: int | None = getattr(self._message, name) if self._message.HasField(name) else None
        return value
