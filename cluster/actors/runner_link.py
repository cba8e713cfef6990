"""The link of a runner to its workers: log files, uploaded data, and a memory limit.

A worker on the runner's node opens the files itself. A worker on another node gets the data from the runner in chunks,
and sends its output to the runner.
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
    """What every worker gets from its runner. `node` is the runner's node, `logs` and `files` are paths on it,
    `memory_per_cpu` is in bytes, `attempt` is the job's attempt, from 1.

    `runner` is the handle of the runner's actor, with the methods `read_file` and `take_log`.
    """

    node: str
    runner: Any
    logs: str
    files: tuple[str, ...] = ()
    memory_per_cpu: int | None = None
    rules: SourceRules = FREE
    attempt: int = 1

    def memory_limit(self, cpus: int) -> int | None:
        """Return the limit in bytes of a worker whose job sets none: its share of the node's memory. None without a
        limit."""
        return None if self.memory_per_cpu is None else self.memory_per_cpu * cpus


def log_line(text: str) -> None:
    """Write a line with its time to this process's log. A full disk loses the line, but raises nothing."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    with contextlib.suppress(OSError):
        print(f"{now} {text}", flush=True)


def log_to_file(path: Path) -> None:
    """Append all output of this process, including the traceback of a crash, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    _redirect(descriptor)
    os.close(descriptor)


def log_to_runner(runner: Any, worker: int) -> None:
    """Send all output of this process to the runner, because the log file is on the runner's host."""
    reading, writing = os.pipe()
    _redirect(writing)
    os.close(writing)

    def forward() -> None:
        while part := os.read(reading, 65536):  # always read on: a full pipe would block the process
            with contextlib.suppress(Exception):  # the runner is gone; this process will end soon
                runner.take_log.remote(worker, part)

    threading.Thread(target=forward, name="log", daemon=True).start()


def _redirect(descriptor: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    # Ray has replaced these with its own objects, which still write to the old place
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    faulthandler.enable(2)


@contextlib.contextmanager
def files_here(link: RunnerLink | None, node: str) -> Iterator[Mapping[str, str]]:
    """Yield the paths on this node of the runner's files, by their paths on the runner's node. On another node these
    are copies, which are removed after the block; on the runner's node the mapping is empty."""
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
