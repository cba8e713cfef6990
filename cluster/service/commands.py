"""Sends the commands that follow from decisions about jobs to the Ray agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from cluster.data.rules import FREE
from cluster.service.faults import strike
from cluster.service.home import Home
from cluster.service.launching import prepare_attempt
from cluster.service.records import JobRecord
from cluster.service.store import Store
from coordinator.queue.job_states import Command, Launch, SendStop


class Commands:
    """Sends commands through `send`, which drops them if no agent is connected. `memory_per_cpu` is in bytes;
    `rules` define which data jobs may read."""

    def __init__(self, home: Home, jobs: Store, send: Callable[[Mapping[str, Any]], None]) -> None:
        self._home, self._store, self.send = home, jobs, send
        self.memory_per_cpu = 0
        self.rules = FREE

    def perform(self, record: JobRecord, command: Command) -> None:
        """Carry the command out. Raises OSError if the attempt cannot be prepared."""
        match command:
            case Launch(attempt):
                strike("admitted")
                made = prepare_attempt(self._home, self._store, record, attempt, self.memory_per_cpu, self.rules)
                self.send({"do": "launch", "job": record.id, "attempt": attempt, "assignment": asdict(made)})
                strike("launched")
            case SendStop(attempt, False, grace):
                self.send({"do": "stop", "job": record.id, "attempt": attempt, "grace": grace})
            case SendStop(attempt, True):
                self.end_runner(record, attempt)

    def adopt(self, record: JobRecord, attempt: int) -> None:
        """Find the runner that an earlier service process started."""
        self.send({"do": "adopt", "job": record.id, "attempt": attempt})

    def end_runner(self, record: JobRecord, attempt: int) -> None:
        """End the runner's process, and its workers with it."""
        self.send({"do": "end", "job": record.id, "attempt": attempt, "pid": record.runner_pid})

    def forget(self, record: JobRecord, attempt: int) -> None:
        """Release the runner, which is no longer needed."""
        self.send({"do": "forget", "job": record.id, "attempt": attempt, "pid": record.runner_pid})
