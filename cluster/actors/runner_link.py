"""What a job runner shares with its workers: log files, uploaded data, a limit of memory.

A worker on the runner's node opens the files itself. One on another node gets the data from the runner in chunks, and
sends the runner what it prints.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster.actors.private_folders import private_folder
from cluster.data.rules import FREE, SourceRules

CHUNK_BYTES = 4 * 2**20
_CALL_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerLink:
    """Handed to every worker. `node` is the runner's, `files` are paths on it, `memory_per_cpu` is in bytes.

    `runner` is the handle of the runner's actor, with the methods `read_file` and `take_log`.
    """

    node: str
    runner: Any
    logs: str
    files: tuple[str, ...] = ()
    memory_per_cpu: int | None = None
    rules: SourceRules = FREE

    def memory_limit(self, cpus: int) -> int | None:
        """Bytes for a worker whose job names no limit: its share of the node, so that no job can take another's."""
        return None if self.memory_per_cpu is None else self.memory_per_cpu * cpus


def log_line(text: str) -> None:
    """Write a line with its time to this process's log; where there is no room for it, nothing else shall suffer."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    with contextlib.suppress(OSError):
        print(f"{now} {text}", flush=True)


def log_to_file(path: Path) -> None:
    """Send all that this process prints, and what a crash of it prints, to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    _redirect(descriptor)
    os.close(descriptor)


def log_to_runner(runner: Any, worker: int) -> None:
    """Send all that this process prints to the runner: its log file is on another host."""
    reading, writing = os.pipe()
    _redirect(writing)
    os.close(writing)

    def forward() -> None:
        while part := os.read(reading, 65536):  # whatever becomes of it: a full pipe would hold up who prints
            with contextlib.suppress(Exception):  # the runner is gone, and with it soon this process
                runner.take_log.remote(worker, part)

    threading.Thread(target=forward, name="log", daemon=True).start()


def _redirect(descriptor: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    # Ray has put objects of its own in place of these, which remember where they wrote before
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    faulthandler.enable(2)


@contextlib.contextmanager
def files_here(link: RunnerLink | None, node: str) -> Iterator[Mapping[str, str]]:
    """Where the runner's files are on this node, by their path on the runner's; copies are removed afterwards."""
    if link is None or link.node == node:
        yield {}
        return
    with private_folder() as folder:
        yield {path: _bring(link.runner, path, folder) for path in link.files}


def _bring(runner: Any, path: str, folder: Path) -> str:
    import ray

    here = folder / Path(path).name
    with here.open("wb") as file:
        while part := ray.get(runner.read_file.remote(path, file.tell()), timeout=_CALL_TIMEOUT_S):
            file.write(part)
    return str(here)
