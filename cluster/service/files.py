"""Files of a run directory for callers: whole files with checksums, and logs line by line."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.service.entry import Entry
from cluster.service.records import JobRecord
from cluster.service.run_feed import read_lines
from coordinator import run_files
from coordinator.job.regular_files import open_regular
from stages.errors import Refused, UserMistake

_PART_BYTES = 2**20
_LOOK_EVERY_S = 0.25
RUNNER = -1
"""The number that means the runner, in place of a worker's number."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """A part of a file. Only the first part has `path` and `size`, only the last has `sha256` (of the whole file)."""

    path: str
    size: int
    data: bytes
    sha256: str


def require_worker(record: JobRecord, worker: int | None) -> None:
    """Raise UserMistake if the job has no process of this number. None means all processes."""
    if worker is None or -1 <= worker < record.needs.workers:
        return
    last = record.needs.workers - 1
    numbers = f"0 to {last}" if last else "0"
    raise UserMistake(f"worker: got {worker}, must be one of job {record.id}: {numbers}, or runner (in calls also -1)")


def files_to_fetch(folder: Path, *, model: bool) -> list[Path]:
    """Return the files to send: the model, or all files. Raises Refused if there are none."""
    if model:
        found = [folder / name for name in run_files.MODEL_FILES]
        if not all(file.exists() for file in found):
            raise Refused("it has saved no model; a job saves one when it succeeds, or when it is stopped in time")
        optional = (folder / name for name in (run_files.TOKENIZER, run_files.PREPROCESSING))
        return [*found, *(file for file in optional if file.is_file())]
    everything = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    found = [
        path
        for path in everything
        if not path.name.startswith(".") and path.relative_to(folder).parts[0] != run_files.CHECKPOINTS
    ]
    if not found:
        raise Refused("it has no run directory yet")
    return found


def file_parts(folder: Path, file: Path) -> Iterator[FilePart]:
    """Yield a file in parts. If the file grows meanwhile, only its length at the beginning is sent."""
    digest = hashlib.sha256()
    with open_regular(file) as opened:
        size = left = file.stat().st_size
        path = file.relative_to(folder).as_posix()
        while True:
            data = opened.read(min(_PART_BYTES, left))
            digest.update(data)
            left -= len(data)
            last = left == 0 or not data
            yield FilePart(path, size if path else 0, data, digest.hexdigest() if last else "")
            path = ""
            if last:
                return


async def log_lines(
    folder: Path, entry: Entry, *, worker: int | None, follow: bool, tail: int
) -> AsyncIterator[tuple[int, bytes]]:
    """Yield whole lines of the job's processes, with the worker's number or RUNNER. With `follow`, continue until the
    job has ended and all its lines are sent."""
    places: dict[int, int] = {}
    while True:
        ended = entry.record.state.ended  # read before the files: else the last lines could be missed
        for number, file in _log_files(folder, worker):
            start = places.get(number)
            if start is None:
                start = await asyncio.to_thread(_tail_start, file, tail, ended)
            while part := await asyncio.to_thread(read_lines, file, start, _PART_BYTES // 4):
                start += len(part)
                yield number, part
            places[number] = start
        if ended or not follow:
            for number, file in _log_files(folder, worker):
                if ended and (rest := await asyncio.to_thread(_rest, file, places.get(number, 0))):
                    yield number, rest + b"\n"  # a killed process leaves an unfinished line
            return
        await asyncio.sleep(_LOOK_EVERY_S)


def _rest(file: Path, start: int) -> bytes:
    try:
        with open_regular(file) as opened:
            opened.seek(start)
            return opened.read()
    except FileNotFoundError:  # the job was deleted meanwhile
        return b""


def _log_files(folder: Path, worker: int | None) -> list[tuple[int, Path]]:
    logs = folder / run_files.LOGS
    if worker is not None:
        file = logs / run_files.log_file(None if worker == RUNNER else worker)
        return [(worker, file)] if file.exists() else []
    found = [(RUNNER, logs / run_files.log_file(None))] if (logs / run_files.log_file(None)).exists() else []
    files = logs.iterdir() if logs.is_dir() else ()
    workers = [(number, file) for file in files if (number := run_files.worker_of_log(file.name)) is not None]
    return found + sorted(workers)


def _tail_start(file: Path, lines: int, ended: bool) -> int:
    """Return the offset in bytes at which the last `lines` lines begin; 0 if `lines` is 0."""
    if lines <= 0:
        return 0
    try:
        with open_regular(file) as opened:
            content = opened.read()
    except FileNotFoundError:
        return 0
    place = len(content)
    torn = ended and not content.endswith(b"\n")  # the unfinished last line counts as a line
    for _ in range(lines if torn else lines + 1):
        place = content.rfind(b"\n", 0, place)
        if place < 0:
            return 0
    return place + 1
