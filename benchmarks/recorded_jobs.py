"""Jobs of a service without processes: run directories as a runner writes them, and `Jobs` that read them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from cluster.run.event_log import ENDINGS
from cluster.run.run_dir import RunDir
from cluster.run.training import Run, Where
from cluster.service.changes import submitted
from cluster.service.home import Home
from cluster.service.jobs import Jobs
from cluster.service.records import JobDocument, JobRecord
from cluster.service.store import Store, insert
from coordinator import run_files
from coordinator.job.spec import JobSpec, parse_job
from coordinator.queue.job_queue import Needs
from coordinator.queue.job_states import Running, State


def classifier(folder: Path, *, stages: int, epochs: int = 2) -> JobSpec:
    """Return a small classifier of `stages` linear layers, on data that is written into `folder`."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 8))
    np.savez(folder / "rows.npz", x=x, y=(x.sum(axis=1) > 0).astype(np.int64))
    layers: list[object] = [{"linear": {"units": 8}}, "tanh"] * (stages - 1)
    return parse_job(
        {
            "name": "classifier",
            "model": {"input": [8], "layers": [*layers, {"linear": {"units": 2}}], "loss": "cross_entropy"},
            "data": {"source": str(folder / "rows.npz"), "validation": 0.25},
            "training": {
                "epochs": epochs,
                "batch_size": 32,
                "micro_batches": 4,
                "optimizer": {"sgd": {"learning_rate": 0.05}},
            },
            "pipeline": {"stages": stages},
        }
    )


def train(spec: JobSpec, folder: Path) -> None:
    """Train with threads as workers, and leave the run directory of a first attempt."""
    run = Run.prepare(spec, Where(local=True))
    run_dir = RunDir.reopen(folder, spec, 1)
    try:
        for _ in run.rows(run_dir):
            pass
    finally:
        run_dir.close()


def record(job: str, *, stages: int, state: State | None = None, name: str = "classifier") -> JobRecord:
    """Return a job that runs, or is in the given state."""
    now = time.time()
    return JobRecord(
        id=job,
        name=name,
        submission_id=job,
        priority=0,
        order=0,
        needs=Needs(workers=stages, cpus=1, memory=0),
        state=state or Running(attempt=1),
        attempt=1,
        steps_total=100,
        submitted_at=now - 20,
        started_at=now - 10,
        events=1,
    )


def _without_end(events: Path) -> None:
    """Remove the events of the end: to its readers, the run still goes on."""
    kept = [line for line in events.read_text().splitlines(keepends=True) if json.loads(line)["event"] not in ENDINGS]
    events.write_text("".join(kept))


@asynccontextmanager
async def jobs_of(folder: Path, records: Sequence[JobRecord], run: Path) -> AsyncIterator[Jobs]:
    """Return the jobs of a home in `folder`, each with a copy of the run directory `run`, which has been read once."""
    home = Home(folder)
    home.make()
    store = Store(home.store)
    try:
        for one in records:
            await store.write(insert(one, JobDocument(document="{}", files={}), submitted(one)))
            shutil.copytree(run, home.run_directory(one.id))
            _without_end(home.run_directory(one.id) / run_files.EVENTS)
        jobs = Jobs(home, store, max_queued=100, send=lambda command: None)
        for entry in jobs.entries.values():
            if entry.feed is not None:
                entry.feed.look_for_rows()
        yield jobs
    finally:
        store.close()
