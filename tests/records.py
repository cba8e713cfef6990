"""A job's record, as the service keeps it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cluster.service.records import JobRecord
from coordinator.queue.job_queue import Needs
from coordinator.queue.job_states import Queued


def job_record(job: str = "job1", **changes: Any) -> JobRecord:
    """Return the record of a job of one worker that was just submitted, with `changes`."""
    record = JobRecord(
        id=job,
        name="a-name",
        submission_id=f"of {job}",
        priority=0,
        order=0,
        needs=Needs(workers=1, cpus=1, memory=0),
        state=Queued(),
        submitted_at=1.0,
        events=1,
    )
    return replace(record, **changes)
