"""The last lines that a job's processes printed, followed as their files grow."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from coordinator import run_files
from coordinator.job.regular_files import open_regular

RUNNER = -1
_FIRST_BYTES, _MOST_BYTES = 32 * 1024, 256 * 1024  # read from a file at the first look, and at each later one
_LINE_CHARACTERS = 4096  # a longer line is cut on the page; the file has all of it


class LogTail:
    """The last `lines` of one process (RUNNER or a worker's number), or of all processes (None); then each line names
    its process."""

    def __init__(self, folder: Path, worker: int | None, most: int) -> None:
        self._folder, self._worker = folder / run_files.LOGS, worker
        self._ends: dict[Path, int] = {}
        self.lines: deque[str] = deque(maxlen=most)

    def look(self, ended: bool) -> bool:
        """Read the new lines from the files; return whether there are any. `ended`: no process writes any more, so that
        a last line without its end, left by a killed process, counts as a line."""
        found = False
        for number, file in self._files():
            found |= self._read(file, "" if self._worker is not None else self._name(number), ended)
        return found

    def _files(self) -> list[tuple[int, Path]]:
        if self._worker is not None:
            return [(self._worker, self._folder / run_files.log_file(None if self._worker == RUNNER else self._worker))]
        files = self._folder.iterdir() if self._folder.is_dir() else ()
        workers = [(number, file) for file in files if (number := run_files.worker_of_log(file.name)) is not None]
        return [(RUNNER, self._folder / run_files.log_file(None)), *sorted(workers)]

    def _name(self, number: int) -> str:
        return "runner   | " if number == RUNNER else f"worker {number:<2}| "

    def _read(self, file: Path, before: str, ended: bool) -> bool:
        try:
            size = file.stat().st_size
            start = self._ends.get(file)
            first = max(0, size - _FIRST_BYTES) if start is None else max(start, size - _MOST_BYTES)
            if size <= first:
                return False
            with open_regular(file) as opened:
                opened.seek(first)
                part = opened.read(size - first)
        except OSError:
            return False
        end = len(part) if ended else part.rfind(b"\n") + 1
        if end == 0:
            return False
        self._ends[file] = first + end
        lines = part[:end].decode(errors="replace").splitlines()
        if first > 0 and first != start:  # the bytes before were skipped, so that the first line is incomplete
            lines = lines[1:] or ["…" + lines[0]]
        self.lines.extend(before + _cut(line) for line in lines)
        return True


def _cut(line: str) -> str:
    left_out = len(line) - _LINE_CHARACTERS
    return line if left_out <= 0 else f"{line[:_LINE_CHARACTERS]}… ({left_out:,} characters more)"
