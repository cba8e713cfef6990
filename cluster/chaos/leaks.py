"""Finds what a run has left behind: processes, sockets, shared memory and files."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.checkpoints.folder import CheckpointFolder
from cluster.checkpoints.manifest import MANIFEST
from coordinator import run_files

_SHM = Path("/dev/shm")
_IDLE = b"ray::IDLE"  # Ray keeps some processes for what comes
_PATIENCE = 10.0  # seconds
_LOOK_AGAIN = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class Held:
    """What this process and its descendants hold, to compare with a later look."""

    processes: frozenset[int]
    sockets: int
    memory: int
    shared_files: frozenset[str]
    folders: frozenset[Path]

    @staticmethod
    def now() -> Held:
        """Look at what is held now."""
        links = [*_own_links()]
        return Held(
            processes=frozenset(_descendants(os.getpid())),
            sockets=sum(link.startswith("socket") for link in links),
            memory=sum("pipetrain" in link for link in links),
            shared_files=frozenset(_own_files(_SHM)),
            folders=frozenset(_private_folders({os.getpid()})),
        )


def leaks(before: Held, workers: Collection[int], run: Path, patience: float = _PATIENCE) -> list[str]:
    """Return a line for each thing that is left of a run after `before`. `workers` are the ids of all processes that
    its workers had, `run` is its run directory. A thing is left if it is still there after `patience` seconds: the
    kernel drops a killed process's command line first and closes its sockets after that, thread by thread."""
    end = time.monotonic() + patience
    while (found := _found(before, workers, run)) and time.monotonic() < end:
        time.sleep(_LOOK_AGAIN)
    return found


def _found(before: Held, workers: Collection[int], run: Path) -> list[str]:
    now = Held.now()
    found = [f"process {pid} of a worker is still there" for pid in workers if _is_a_worker(pid)]
    more = now.processes - before.processes - set(workers)
    found += [f"process {pid} is still there: {_command(pid)}" for pid in more if _IDLE not in _bytes(pid)]
    if now.sockets > before.sockets:
        found.append(f"this process has {now.sockets - before.sockets} sockets more than after the undisturbed run")
    if now.memory > before.memory:
        found.append(f"this process has {now.memory - before.memory} more pieces of memory of links")
    new = [name for name in now.shared_files - before.shared_files if not _is_open(_SHM / name)]
    found += [f"{_SHM / name} is left" for name in new]
    found += [f"{path} is left" for path in {*_private_folders(workers), *(now.folders - before.folders)}]
    found += [f"a socket at {path} is left" for path in _socket_paths(workers)]
    return [*found, *left_in(run)]


def left_in(run: Path) -> list[str]:
    """Return a line for each file of a run directory that should not be there after the run's end."""
    found = []
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        name = path.relative_to(run).as_posix()
        unfinished = any(part.startswith(".") for part in name.split("/"))
        if unfinished or run_files.run_file(name) is None or name in (run_files.FAULT_REQUEST, run_files.TRACE_REQUEST):
            found.append(f"{path} is left")
    folder = CheckpointFolder(run / run_files.CHECKPOINTS)
    whole = {folder.place(step).name for step in folder.steps()}
    for path in (run / run_files.CHECKPOINTS).glob("*"):
        if path.name not in whole or not (path / MANIFEST).is_file():
            found.append(f"{path} is left, and is no checkpoint")
    return found


def _descendants(parent: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                state, of = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(of) == parent and state not in "ZX":
                    yield int(entry.name)
                    yield from _descendants(int(entry.name))


def _is_a_worker(pid: int) -> bool:
    return b"ray::" in _bytes(pid) and b"PipetrainWorker" in _bytes(pid)


def _command(pid: int) -> str:
    return _bytes(pid).replace(b"\0", b" ").decode(errors="replace")[:100]


def _bytes(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _own_links() -> Iterator[str]:
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            yield os.readlink(entry)


def _own_files(folder: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                    yield entry.name


def _is_open(path: Path) -> bool:
    """Whether a process of this user has the file open."""
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(descriptor) == str(path):
                return True
    return False


def _private_folders(pids: Collection[int]) -> list[Path]:
    base = Path(tempfile.gettempdir())
    return [path for pid in pids for path in base.glob(f"pipetrain-{pid}-*")]


def _socket_paths(pids: Collection[int]) -> list[str]:
    try:
        lines = Path("/proc/net/unix").read_text().splitlines()
    except OSError:
        return []
    paths = [line.split(None, 7)[7] for line in lines if line.count(" ") and len(line.split(None, 7)) > 7]
    return [path for path in paths if any(f"/pipetrain-{pid}-" in path for pid in pids)]
