"""A new job that goes on from the checkpoints of a job that has ended.

[Note: checkpoints of two jobs] The new job's run directory begins with hard links to the files of the old job's
checkpoints. Files of checkpoints are never changed, only removed; so both jobs have them, nothing is copied, and either
job may be deleted.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

from cluster.checkpoints.folder import CheckpointFolder, read_manifest
from coordinator import run_files
from coordinator.job.resuming import changes_refused
from coordinator.job.spec import JobSpec, parse_job
from coordinator.texts import counted
from stages.data import batch_bounds
from stages.errors import InvalidData, InvalidJob, Refused

if TYPE_CHECKING:
    from cluster.service.home import Home
    from cluster.service.jobs import Jobs


def require_resumable(jobs: Jobs, before: str, spec: JobSpec) -> int:
    """Return the step of the newest checkpoint of job `before`, from which a new job can go on as `spec`.

    Raises Refused if the old job has not ended, has no checkpoint, or has made all steps already; InvalidJob with a
    line for each change that is not possible.
    """
    record = jobs.record(before)
    if not record.state.ended:
        raise Refused(f"job {before} is {record.state.name}; only a job that has ended can be resumed: stop it first")
    if refused := changes_refused(
        parse_job(json.loads(jobs.store.document(before).document)).document(), spec.document()
    ):
        raise InvalidJob(refused)
    folder = CheckpointFolder(jobs.home.run_directory(before) / run_files.CHECKPOINTS)
    for step in reversed(folder.steps()):
        try:
            manifest = read_manifest(folder.place(step))
        except InvalidData:
            continue  # the runner says so, and checks the files of all others
        training = spec.training
        total = training.n_steps(len(batch_bounds(manifest.train_rows, training.batch_size)))
        if step >= total:
            raise Refused(f"job {before} has made all {counted(total, 'step')}; give more with --set training.epochs=N")
        return step
    raise Refused(f"job {before} has no whole checkpoint to go on from; submit its job file anew")


def take_checkpoints(home: Home, before: str, job: str) -> None:
    """Give a new job the checkpoints of another one, see [Note: checkpoints of two jobs]. Raises OSError."""
    source = CheckpointFolder(home.run_directory(before) / run_files.CHECKPOINTS)
    for step in source.steps():
        place = home.run_directory(job) / run_files.CHECKPOINTS / source.place(step).name
        place.mkdir(parents=True)
        for file in source.place(step).iterdir():
            os.link(file, place / file.name)


def drop_checkpoints(home: Home, job: str) -> None:
    """Remove what `take_checkpoints` made for a job that was not accepted."""
    shutil.rmtree(home.run_directory(job), ignore_errors=True)
