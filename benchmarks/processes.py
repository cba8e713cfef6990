"""Worker processes of a measurement: `AskedProcesses` with one BLAS thread each, which tell all that they wrote if one
fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import ONE_THREAD
from cluster.run.asked_processes import AskedProcesses
from stages.errors import HostFailed

LOG_LINES = 20


class Processes(AskedProcesses):
    """One process for each command, which is started in the project's root."""

    def __init__(self, title: str, commands: Sequence[Sequence[str]], environment: Mapping[str, str]) -> None:
        root = str(Path(__file__).parents[1])
        super().__init__(title, commands, {**ONE_THREAD, "PYTHONPATH": root, **environment})

    def _failure(self, rank: int, what: str) -> HostFailed:
        """Return the error to raise, with the end of every process's stderr."""
        parts = [str(super()._failure(rank, what))]
        for other in range(len(self._processes)):
            lines = self._last_lines(other)[-LOG_LINES:]
            parts.append("\n  ".join([f"worker {other}:", *(lines or ["(nothing on stderr)"])]))
        return HostFailed("\n".join(parts))
