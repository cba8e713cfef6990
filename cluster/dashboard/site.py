"""The class Site: the service's objects for the pages and /api, and the requests that these make."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from cluster.dashboard.stats_archive import StatsArchive
from cluster.service.api import Api
from cluster.service.entry import Entry
from cluster.service.files import files_to_fetch, log_lines, require_worker
from cluster.service.home import Home
from cluster.service.job_stats import JobStats
from cluster.service.jobs import Jobs
from cluster.service.ray_keeper import RayKeeper
from cluster.service.records import EventRecord, JobRecord
from cluster.service.traces import ask_for_trace
from cluster.service.uploads import Uploads, upload_path
from coordinator import run_files
from coordinator.job.regular_files import read_regular
from coordinator.job.spec import JobSpec, parse_job
from stages.errors import Refused, UnknownJob

_PART_BYTES = 2**18
_MOST_JSON = 2**23  # bytes
_LAYOUTS = ("starting", "laid out anew")  # the kinds of events that have a placement


class NoSuchFile(Refused):
    """The error for a file that a run directory does not have."""


@dataclass(slots=True)
class Site:
    """The service's objects in this process."""

    jobs: Jobs
    keeper: RayKeeper
    uploads: Uploads
    api: Api
    archive: StatsArchive = field(init=False)

    def __post_init__(self) -> None:
        self.archive = StatsArchive(self.jobs)

    @property
    def home(self) -> Home:
        """The service's home."""
        return self.jobs.home

    def folder(self, job: str) -> Path:
        """Return a job's run directory."""
        return self.home.run_directory(job)

    async def find(self, prefix: str) -> JobRecord:
        """Return the present record of the job of this id, beginning of an id, or name. Raises UnknownJob with the
        nearest one."""
        job = await self.jobs.find(prefix)
        if job in self.jobs.entries:
            return self.jobs.record(job)
        record = await asyncio.to_thread(self.jobs.store.get, job)
        if record is None:
            raise UnknownJob(f"job {job} was deleted")
        return record

    async def events(self, job: str, after: int = 0) -> list[EventRecord]:
        """Return a job's events after the one with this number, in order."""
        return await asyncio.to_thread(self.jobs.store.events, job, after)

    async def logs(self, record: JobRecord, worker: int | None, tail: int) -> list[tuple[int, str]]:
        """Return (worker, line) of the last lines of a job's processes, or of one of them; -1 is the runner. Raises
        UserMistake if the job has no such worker."""
        require_worker(record, worker)
        entry = self.jobs.entries.get(record.id) or Entry(record)
        found: list[tuple[int, str]] = []
        async for number, part in log_lines(self.folder(record.id), entry, worker=worker, follow=False, tail=tail):
            found += [(number, line) for line in part.decode(errors="replace").splitlines()]
        return found

    async def spec(self, job: str) -> JobSpec:
        """Return the submitted job with all defaults. Raises UnknownJob."""

        def read() -> JobSpec:
            return parse_job(json.loads(self.jobs.store.document(job).document))

        try:
            return await asyncio.to_thread(read)
        except KeyError:
            raise UnknownJob(f"job {job} was deleted") from None

    def places(self, files: Mapping[str, str]) -> dict[str, str]:
        """Return the paths of a job's uploaded files, by their names in the job."""
        return {path: str(upload_path(self.home, sha256, path)) for path, sha256 in files.items()}

    async def files(self, job: str) -> list[tuple[str, int]]:
        """Return path and size of each file in a job's run directory; empty before there is one."""
        return await asyncio.to_thread(_files, self.folder(job))

    async def evaluation(self, record: JobRecord) -> dict[str, Any] | None:
        """Return the figures of the last evaluation of a job's present attempt; None if there are none."""
        return await asyncio.to_thread(_content_of, self.folder(record.id) / run_files.EVALUATION, record.attempt)

    async def plan(self, record: JobRecord) -> dict[str, Any] | None:
        """Return the plan of a job's present attempt; None if there is none."""
        return await asyncio.to_thread(_content_of, self.folder(record.id) / run_files.PLAN, record.attempt)

    async def open_file(self, job: str, path: str) -> tuple[int, Iterator[bytes]]:
        """Return size and content of a file in a job's run directory. Raises NoSuchFile."""
        sizes = dict(await self.files(job))
        if path not in sizes:
            raise NoSuchFile(f"job {job} has no file {path[:200]}; GET /api/jobs/{job}/files lists what it has")
        try:
            opened = await asyncio.to_thread((self.folder(job) / path).open, "rb")
        except FileNotFoundError:
            raise NoSuchFile(f"job {job} was deleted, or {path[:200]} was put aside, a moment ago") from None
        return sizes[path], _content(opened, sizes[path])

    async def placement(self, record: JobRecord, stats: JobStats) -> list[int]:
        """Return the worker of each stage, from a sampled step, else from the attempt's last event `starting` or
        `laid out anew`. Empty before either is known."""
        if stats.placement:
            return stats.placement
        began = [e for e in await self.events(record.id) if e.kind in _LAYOUTS and e.attempt == stats.attempt]
        return list(began[-1].details.get("placement", ())) if began else []

    async def trace(self, prefix: str, steps: int) -> str:
        """Request a trace of the next steps of the job that `find` returns for `prefix`, and return its id. Raises
        Refused if the job has ended, UnknownJob, UserMistake."""
        job = (await self.find(prefix)).id
        await ask_for_trace(self.jobs, job, steps)
        return job


def _content_of(file: Path, attempt: int) -> dict[str, Any] | None:
    """Return the content of a JSON file; None if there is none, if it is damaged, or if it is of another attempt."""
    try:
        found = json.loads(read_regular(file, _MOST_JSON))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("attempt") == attempt else None


def _files(folder: Path) -> list[tuple[str, int]]:
    try:
        found = files_to_fetch(folder, model=False)
    except Refused:
        return []
    listed = []
    for file in found:
        with contextlib.suppress(FileNotFoundError):
            listed.append((file.relative_to(folder).as_posix(), file.stat().st_size))
    return listed


def _content(opened: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the first `size` bytes: the file may grow meanwhile."""
    with opened:
        while size > 0 and (part := opened.read(min(_PART_BYTES, size))):
            size -= len(part)
            yield part
