"""Jobs without Ray: a home for each test, commands that are kept instead of sent, and runners' files from the test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from cluster.service.home import Home
from cluster.service.jobs import Jobs
from cluster.service.records import JobDocument
from cluster.service.store import Store
from tests.records import job_record

NODE: Mapping[str, Any] = {"id": "n", "cpus": 4.0, "memory": 2**32}


class Scripted:
    """The jobs of a home. `sent` has the commands that the Ray agent would get."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)
        self.home.make()
        self.store = Store(self.home.store)
        self.sent: list[Mapping[str, Any]] = []
        self.jobs = Jobs(self.home, self.store, max_queued=10, send=self.sent.append)
        self.jobs.cluster_is([NODE])

    async def submit(self, job: str = "job1") -> None:
        """Submit a job."""
        await self.jobs.submit(job_record(job, submitted_at=time.time()), JobDocument(document="{}", files={}))

    def writes(self, event: str, job: str = "job1", **details: Any) -> None:
        """Write an event, as the job's runner does."""
        folder = self.home.run_directory(job)
        folder.mkdir(exist_ok=True)
        with (folder / "events.jsonl").open("a") as file:
            file.write(json.dumps({"event": event, "attempt": 1, **details}) + "\n")

    def state(self, job: str = "job1") -> str:
        """Return the name of the job's state."""
        return self.jobs.record(job).state.name

    def reason(self, job: str = "job1") -> str:
        """Return the reason of the job's state that callers see."""
        return self.jobs.view(self.jobs.record(job)).reason

    async def until(self, condition: Callable[[], bool], otherwise: Callable[[], object] = str) -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end, otherwise()
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def scripted(folder: Path) -> AsyncIterator[Scripted]:
    """Run the loops of the service in the block."""
    service = Scripted(folder)
    loops = [asyncio.create_task(loop) for loop in (service.jobs.keep_scheduling(), service.jobs.keep_following())]
    try:
        yield service
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await service.jobs.settle()
        service.store.close()
