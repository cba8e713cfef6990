"""Worker processes of a measurement. They start together and get requests together, and every wait has a limit."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks import ONE_THREAD

CLOSE_TIMEOUT_S = 10.0
LOG_LINES = 20


class WorkerFailed(RuntimeError):
    """A worker process died or gave no answer in time; the message holds what it wrote to stderr."""


class Processes:
    """One process for each command, with one BLAS thread. It answers a line on stdin with a line of JSON on stdout.

    Between two requests the processes block on their stdin, so that something else can be measured. They end when
    their stdin ends, which it also does if this process dies.
    """

    def __init__(self, title: str, commands: Sequence[Sequence[str]], environment: Mapping[str, str]) -> None:
        self._title = title
        self._processes: list[subprocess.Popen[bytes]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="benchmark-")
        try:
            for rank, command in enumerate(commands):
                with self._log(rank).open("wb") as log:
                    process = subprocess.Popen(
                        command,
                        bufsize=0,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=log,
                        cwd=Path(__file__).parents[1],
                        env={**os.environ, **ONE_THREAD, **environment},
                    )
                self._processes.append(process)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def ask(self, line: str, timeout_s: float) -> list[Any]:
        """Send one line to every process and return their answers in order."""
        for process in self._processes:
            assert process.stdin is not None
            try:
                process.stdin.write(f"{line}\n".encode())
            except OSError:
                raise self._failure("died") from None
        return self.answers(timeout_s)

    def answers(self, timeout_s: float) -> list[Any]:
        """The next answer of every process, in order."""
        deadline = time.monotonic() + timeout_s
        answers: dict[int, Any] = {}
        with selectors.DefaultSelector() as waiting:
            for rank, process in enumerate(self._processes):
                assert process.stdout is not None
                waiting.register(process.stdout, selectors.EVENT_READ, (rank, process.stdout))
            while len(answers) < len(self._processes):
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise self._failure(f"gave no answer within {timeout_s:.0f} s")
                for key, _ in waiting.select(left_s):
                    rank, stdout = key.data
                    line = stdout.readline()
                    if not line:
                        raise self._failure("died")
                    answers[rank] = json.loads(line)
                    waiting.unregister(stdout)
        return [answers[rank] for rank in range(len(self._processes))]

    def close(self) -> None:
        """End all processes, by force if they do not end by themselves."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self._processes.clear()
        self._folder.cleanup()

    def _log(self, rank: int) -> Path:
        return Path(self._folder.name) / f"stderr-{rank}.txt"

    def _failure(self, what: str) -> WorkerFailed:
        """Kill all processes, and return the error to raise, with the end of every process's stderr."""
        time.sleep(0.2)  # a process that closed its pipes may still be writing its traceback
        codes = [process.poll() for process in self._processes]
        for process in self._processes:
            process.kill()
        parts = [f"{self._title}: a worker {what}"]
        for rank, code in enumerate(codes):
            state = "still running" if code is None else f"exit code {code}"
            lines = self._log(rank).read_text(errors="replace").splitlines()[-LOG_LINES:]
            parts.append("\n  ".join([f"worker {rank}, {state}:", *(lines or ["(nothing on stderr)"])]))
        return WorkerFailed("\n".join(parts))
