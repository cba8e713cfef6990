"""Processes that answer a line on stdin with a line of JSON on stdout. They start together and get requests together,
and every wait has a limit."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any, Self

from stages.errors import HostFailed

_CLOSE_S = 10.0
_LAST_WORDS_S = 1.0
_READ_BYTES = 2**16


class AskedProcesses:
    """One process for each command. Between two requests they block on their stdin; they end when it ends, which it
    also does if this process dies.

    `title` begins the line of a failure, which has the last line that the process wrote to stderr; `advice` ends it.
    """

    def __init__(
        self, title: str, commands: Sequence[Sequence[str]], environment: Mapping[str, str], advice: str = ""
    ) -> None:
        self._title, self._advice = title, advice
        self._processes: list[subprocess.Popen[bytes]] = []
        self._unread = [b""] * len(commands)
        self._logs: list[IO[bytes]] = []
        try:
            for command in commands:
                self._logs.append(_log_file(title))
                process = subprocess.Popen(
                    command,
                    bufsize=0,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._logs[-1],
                    process_group=0,  # Ctrl-C would reach them before they can ignore it
                    env={**os.environ, **environment},
                )
                self._processes.append(process)
        except OSError as error:
            self.close()
            raise HostFailed(f"{title}: no process can be started: {error.strerror}{advice}") from None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def ask(self, line: str, timeout_s: float) -> list[Any]:
        """Send one line to every process and return their answers in order."""
        return self.ask_each([line] * len(self._processes), timeout_s)

    def ask_each(self, lines: Sequence[str], timeout_s: float) -> list[Any]:
        """Send each of the first processes its line and return their answers in order. Raises HostFailed."""
        self.send_lines(lines)
        return self.answers(timeout_s, len(lines))

    def send_lines(self, lines: Sequence[str]) -> None:
        """Send each of the first processes its line. Raises HostFailed."""
        for rank, (process, line) in enumerate(zip(self._processes, lines, strict=False)):
            assert process.stdin is not None, "it was given a pipe"
            try:
                process.stdin.write(f"{line}\n".encode())
            except OSError:
                raise self._failure(rank, "died") from None

    def answers(self, timeout_s: float, count: int | None = None) -> list[Any]:
        """Return the next answer of the first `count` processes (None: all), in order. Raises HostFailed."""
        deadline, found, late = time.monotonic() + timeout_s, dict[int, Any](), False
        with selectors.DefaultSelector() as waiting:
            for rank, process in enumerate(self._processes[:count]):
                assert process.stdout is not None, "it was given a pipe"
                if not self._take_answer(rank, found):
                    waiting.register(process.stdout, selectors.EVENT_READ, rank)
            while waiting.get_map():
                ready = waiting.select(max(0.0, deadline - time.monotonic()))
                if not ready or late:
                    rank = min(key.data for key in waiting.get_map().values())
                    raise self._failure(rank, f"gave no answer within {timeout_s:.0f} s")
                late = time.monotonic() > deadline  # a process may write without end
                for key, _ in ready:
                    rank = key.data
                    part = os.read(key.fd, _READ_BYTES)  # a whole line might never come
                    if not part:
                        raise self._failure(rank, "died")
                    self._unread[rank] += part
                    if self._take_answer(rank, found):
                        waiting.unregister(key.fileobj)
        return [found[rank] for rank in sorted(found)]

    def _take_answer(self, rank: int, found: dict[int, Any]) -> bool:
        """Move the first whole line that was read from a process into `found`; return whether there is one."""
        line, end, rest = self._unread[rank].partition(b"\n")
        if end:
            self._unread[rank] = rest
            try:
                found[rank] = json.loads(line)
            except ValueError:
                raise self._failure(rank, "wrote no answer") from None
        return bool(end)

    def close(self) -> None:
        """End all processes, by force if they do not end by themselves."""
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        deadline = time.monotonic() + _CLOSE_S
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        for log in self._logs:
            log.close()
        self._logs.clear()

    def _last_lines(self, rank: int) -> list[str]:
        """Return the last lines that a process has written to stderr."""
        log = self._logs[rank].fileno()
        start = max(0, os.fstat(log).st_size - _READ_BYTES)
        # not by seeking, which would move the place at which the process writes on
        return os.pread(log, _READ_BYTES, start).decode(errors="replace").splitlines()

    def _failure(self, rank: int, what: str) -> HostFailed:
        """Return the error to raise about the process that died or gave no answer."""
        process = self._processes[rank]
        if what == "died":
            with contextlib.suppress(subprocess.TimeoutExpired):  # one that closed its pipes may still be writing
                what = f"ended with code {process.wait(_LAST_WORDS_S)}"
        lines = [line.strip() for line in self._last_lines(rank) if line.strip()]
        last = f": {lines[-1]}" if lines else ""
        return HostFailed(f"{self._title}: a process {what}{last}{self._advice}")


def _log_file(title: str) -> IO[bytes]:
    """Return a file for stderr. It has no name, so that nothing is left of it however this process ends."""
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise HostFailed(
            f"{title}: no temporary file can be made: {error.strerror}; name another folder in TMPDIR"
        ) from None
