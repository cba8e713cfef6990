"""Reads the files that jobs name in processes outside the service: a file may be endless, its file system may hang, and
its content may take all memory. Each request gets a process of its own (a reader), with a deadline and a memory limit.

The service starts the next reader ahead, because its imports take most of the time. At most `most` readers work at a
time; a reader that the kernel cannot end, because its file system hangs, counts until it is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.service.reader import AHEAD
from stages.errors import JobFailed, Refused, UserMistake

MEMORY_BYTES = 2 * 2**30
MOST_BYTES = 512 * 2**20
"""The largest source that is read only to plan a job."""
SECONDS = 30.0
_MOST_WAITING = 64
_START_S, _CLOSE_S = 60.0, 2.0
_ANSWER_BYTES = 64 * 2**20
_OR_ELSE = ", is the service's machine busy, or does the job have very many layers?"
_LATE = {
    "plan": ("was not read and planned", f"{_OR_ELSE} `pipetrain plan` on your machine has no such limit"),
    "choose": (
        "no settings were chosen for pipeline: auto",
        f"{_OR_ELSE} Name pipeline.stages and pipeline.schedule instead, as `pipetrain plan` on your machine says",
    ),
}
"""What did not happen in time, and what to ask or do, by request."""


class Unreadable(UserMistake):
    """A file that a job names cannot be read, or its content is wrong. `problems` has a line for each problem."""


class Outside:
    """The readers of one service. `seconds` and `memory` (bytes) are the limits of a request."""

    def __init__(
        self,
        *,
        seconds: float = SECONDS,
        memory: int = MEMORY_BYTES,
        most: int = 2,
        command: Sequence[str] = (sys.executable, "-m", "cluster.service.reader"),
    ) -> None:
        self._seconds, self._memory, self._command = seconds, memory, command
        self._free = asyncio.Semaphore(most)
        self._waiting = 0
        self._closed = False
        self._spare: asyncio.Task[asyncio.subprocess.Process] | None = None
        self._working: set[asyncio.subprocess.Process] = set()
        self._ending: set[asyncio.Task[None]] = set()

    async def ask(self, what: str, name: str, **question: Any) -> dict[str, Any]:
        """Return a reader's answer. Errors call the file that it reads `name`.

        Raises Unreadable with the file's problems, Refused if the reading takes too long or too many requests wait.
        """
        await self._enter(name)
        process = await self._reader()
        try:
            await _ready(process)
            request = {"what": what, "seconds": self._seconds, "memory": self._memory, **question}
            async with asyncio.timeout(self._seconds):
                output, errors = await process.communicate(json.dumps(request).encode() + b"\n")
        except TimeoutError:
            late, hint = _LATE.get(what, ("was not read", "?"))
            raise Refused(f"{name}: {late} within {self._seconds:g} s; does its file system answer{hint}") from None
        finally:
            self._end(process)
        return _answer(name, process.returncode, output, errors)

    async def close(self) -> None:
        """End all readers; requests under way fail."""
        self._closed = True
        for process in self._working:
            _kill(process)
        spare, self._spare = self._spare, None
        if spare is not None:
            with contextlib.suppress(OSError, TimeoutError):
                process = await spare
                _kill(process)
                async with asyncio.timeout(_CLOSE_S):
                    await process.communicate()
        if self._ending:
            await asyncio.wait(self._ending, timeout=_CLOSE_S)

    async def _enter(self, name: str) -> None:
        """Take one of the `most` places. `_end` gives it back."""
        if self._waiting >= _MOST_WAITING:
            raise Refused(
                f"{name}: {self._waiting} other requests wait for the service to read their files; try again later"
            )
        self._waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                await self._free.acquire()
        except TimeoutError:
            raise Refused(
                f"{name}: the service still reads files of other requests after {self._seconds:g} s; try again later"
            ) from None
        finally:
            self._waiting -= 1

    async def _reader(self) -> asyncio.subprocess.Process:
        spare, self._spare = self._spare, None
        process: asyncio.subprocess.Process | None = None
        try:
            if spare is not None:
                with contextlib.suppress(OSError):  # the spare could not be started; a new one perhaps can
                    process = await spare
            if process is None or process.returncode is not None:
                process = await self._start()
            self._working.add(process)
        except BaseException:
            self._free.release()
            raise
        return process

    async def _start(self, *options: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(*self._command, *options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=_ANSWER_BYTES,
        )

    def _end(self, process: asyncio.subprocess.Process) -> None:
        """End the reader and its child processes, and start the next one. Its place is free once it is gone."""
        _kill(process)
        if self._spare is None and not self._closed:  # only now: its imports would slow the reader at work
            self._spare = asyncio.create_task(self._start(AHEAD))

        async def gone() -> None:
            await process.wait()
            self._working.discard(process)
            self._free.release()

        task = asyncio.create_task(gone())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def _ready(process: asyncio.subprocess.Process) -> None:
    """Wait until the reader has made its imports; their time does not count for the file. Raises JobFailed."""
    assert process.stdout is not None, "it has a pipe"
    try:
        async with asyncio.timeout(_START_S):
            await process.stdout.readline()
    except TimeoutError:
        raise JobFailed(f"the service's reader did not start within {_START_S:g} s: the machine is busy") from None


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _answer(name: str, code: int | None, output: bytes, errors: bytes) -> dict[str, Any]:
    if code != 0:
        text = errors.decode(errors="replace").strip()
        if code == -signal.SIGKILL or "MemoryError" in text or "allocat" in text:
            raise Unreadable(f"{name}: reading it takes more memory than the service allows for that")
        raise JobFailed(f"reading {name} failed: {text[-500:]}")
    answer: Mapping[str, Any] = json.loads(output)
    if answer["problems"]:
        raise Unreadable("\n".join(answer["problems"]))
    return dict(answer)
