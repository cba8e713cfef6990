"""A service's jobs without Ray: commands to the agent are recorded, and the test plays the runners.

The real protocol is this. The service sends commands {"do": launch | adopt | stop | end | forget, "job", "attempt", …}
(`cluster/service/ray_agent.py`), each perhaps twice. A launched runner writes lines into its run directory:
events.jsonl (preparing, starting, started, then finished, stopped or failed; each with its attempt) and a row for each
step into metrics.jsonl. When its process has ended in any way, the agent reports that once: `Jobs.runner_gone`. If Ray
ends, `Jobs.cluster_lost` follows, and when it is connected again, `Jobs.cluster_is` and `Jobs.connected`.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from cluster.service.home import Home
from cluster.service.jobs import Jobs
from cluster.service.records import JobDocument, JobRecord
from cluster.service.store import Store
from coordinator.queue.job_queue import Needs
from coordinator.train.rows import StepRow
from tests.jobs import digits_job
from tests.records import job_record

T = TypeVar("T")
NODE = {"id": "n", "host": "vm", "address": "127.0.0.1", "cpus": 2.0, "memory": 8 * 2**30}
DOCUMENT = JobDocument(document=json.dumps(digits_job().document()), files={})
BEGUN = ["submitted", "admitted", "preparing", "starting", "started"]
"""The events of a job that trains."""
_WITHIN_S = 30.0


class FailingStore(Store):
    """A store whose disk is full while `full` is true."""

    full = False

    async def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        return await super().write(change)


class Runner:
    """The files that one attempt of a job writes."""

    def __init__(self, folder: Path, attempt: int) -> None:
        self._folder, self._attempt = folder, attempt
        folder.mkdir(parents=True, exist_ok=True)

    def tells(self, event: str, **details: Any) -> Runner:
        """Write an event."""
        self._append("events.jsonl", {"event": event, "attempt": self._attempt, **details})
        return self

    def begins(self) -> Runner:
        """Write all events until the training begins."""
        self.tells("preparing", pid=2**22 + 1, host="elsewhere")  # no process of this host has that number
        counts = {"workers": 1, "stages": 1, "micro_batches": 2, "steps_total": 10}
        self.tells("starting", schedule="1f1b", **counts)
        return self.tells("started", workers=[{"worker": 0, "host": "elsewhere", "pid": 2**22 + 2}])

    def makes_steps(self, first: int, last: int) -> Runner:
        """Write the rows of steps `first` … `last` − 1."""
        for step in range(first, last):
            self._append("metrics.jsonl", step_row(step).as_dict())
        return self

    def _append(self, name: str, content: Mapping[str, Any]) -> None:
        with (self._folder / name).open("a") as file:
            file.write(json.dumps(dict(content)) + "\n")


def step_row(step: int) -> StepRow:
    """Return a step's row, with a loss that no other row has."""
    return StepRow(
        step=step, epoch=0, samples=8, loss=float(step), seconds=0.1, grad_norm=1.0, learning_rate=0.1, bubble=0.0,
        accuracy=None,
    )  # fmt: skip


class Scene:
    """Jobs with a home of their own, and the commands that they sent."""

    def __init__(self, folder: Path, *, max_queued: int = 100) -> None:
        self.home = Home(folder)
        self.home.make()
        self.store = FailingStore(self.home.store)
        self.sent: list[Mapping[str, Any]] = []
        self.jobs = Jobs(self.home, self.store, max_queued=max_queued, send=self.sent.append)

    async def submit(self, job: str, *, cpus: int = 1, priority: int = 0, preempt: bool = False) -> JobRecord:
        """Submit a job with one worker."""
        return await self.jobs.submit(replace(record(job, cpus=cpus, priority=priority), preempt=preempt), DOCUMENT)

    def runner(self, job: str, attempt: int = 1) -> Runner:
        """Return the runner of an attempt."""
        return Runner(self.home.run_directory(job), attempt)

    def state(self, job: str) -> str:
        """Return the name of the job's state."""
        return self.jobs.record(job).state.name

    def told(self, job: str) -> list[str]:
        """Return the kinds of its events, whose numbers must be 1, 2, 3, …"""
        events = self.store.events(job)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        return [event.kind for event in events]

    def commands(self, job: str) -> list[tuple[str, int]]:
        """Return the commands that the agent got for a job."""
        return [(command["do"], command["attempt"]) for command in self.sent if command["job"] == job]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the event loop run until a condition holds."""
        async with asyncio.timeout(_WITHIN_S):
            while not condition():
                await asyncio.sleep(0.005)

    async def until_state(self, job: str, state: str) -> None:
        """Wait until the job is in a state."""
        await self.until(lambda: self.state(job) == state)

    async def run(self, job: str, *, cpus: int = 1) -> Runner:
        """Submit a job, and let it begin to train."""
        await self.submit(job, cpus=cpus)
        await self.until(lambda: ("launch", 1) in self.commands(job))
        runner = self.runner(job).begins()
        await self.until_state(job, "RUNNING")
        return runner


def record(job: str, *, cpus: int = 1, priority: int = 0, submission_id: str = "") -> JobRecord:
    """Return the record of a new job."""
    return job_record(
        job,
        name="small",
        submission_id=submission_id or f"id of {job}",
        priority=priority,
        needs=Needs(workers=1, cpus=cpus, memory=2**20),
        submitted_at=1000.0,
    )


@asynccontextmanager
async def scene(folder: Path, *, nodes: int = 1, max_queued: int = 100) -> AsyncIterator[Scene]:
    """Make a scene that schedules and follows jobs as the service does."""
    made = Scene(folder, max_queued=max_queued)
    made.jobs.cluster_is([NODE] * nodes)
    keeping = [asyncio.create_task(made.jobs.keep_scheduling()), asyncio.create_task(made.jobs.keep_following())]
    try:
        yield made
    finally:
        for task in keeping:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await made.jobs.settle()
        made.store.close()


def play(folder: Path, script: Callable[[Scene], Coroutine[Any, Any, None]], **options: int) -> None:
    """Perform a script on a new scene."""

    async def within() -> None:
        async with scene(folder / "home", **options) as made:
            await script(made)

    asyncio.run(within())
