"""Answers of a job's runner to requests in its run directory: events with the request's id."""

from __future__ import annotations

from collections.abc import Collection

from cluster.service.jobs import Jobs
from cluster.service.records import EventRecord


async def answer_to(jobs: Jobs, job: str, request: str, kinds: Collection[str]) -> EventRecord | None:
    """Wait for the job's event of one of these kinds with the id `request`, and return it; None if the job ends
    before."""
    after = 0
    while True:
        entry = jobs.entries.get(job)
        changed = None if entry is None else entry.changed
        for event in jobs.store.events(job, after):
            after = event.seq
            if event.details.get("id") == request and event.kind in kinds:
                return event
        if changed is None:
            return None
        await changed.wait()
