"""Builds a runner's input from the store's record of its job."""

from __future__ import annotations

import json

from cluster.data.rules import SourceRules
from cluster.run.job_runner import Assignment
from cluster.service.home import Home
from cluster.service.records import JobRecord
from cluster.service.run_feed import retire_attempt
from cluster.service.store import Store
from cluster.service.uploads import upload_path


def prepare_attempt(
    home: Home, store: Store, record: JobRecord, attempt: int, memory_per_cpu: int, rules: SourceRules
) -> Assignment:
    """Move the rows of the previous attempt aside, and return the assignment of this one. A second call does no harm.
    Raises OSError."""
    folder = home.run_directory(record.id)
    if attempt > 1:
        retire_attempt(folder, attempt - 1)
    found = store.document(record.id)
    return Assignment(
        job=record.id,
        attempt=attempt,
        folder=str(folder),
        document=json.loads(found.document),
        files={path: str(upload_path(home, sha256, path)) for path, sha256 in found.files.items()},
        memory_per_cpu=memory_per_cpu,
        force=record.force,
        resumed_from=record.resumed_from,
        workers=record.needs.workers,
        rules=rules.for_job(remote=record.remote).as_dict(),
    )
