"""Reading a run directory while its runner writes it: whole lines only, each once.

The rows of the present attempt are in `metrics.jsonl`, those of one that was lost in `metrics.attempt-N.jsonl`, so that
`metrics.jsonl` never has a step twice. `events.jsonl` has the events of all attempts.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class RunEvent:
    """A line of events.jsonl, and where in the file it ends, in bytes."""

    content: Mapping[str, Any]
    end: int


class RunFeed:
    """Follows one attempt. `metrics_end` is how far its rows are known, in bytes."""

    def __init__(self, folder: Path, attempt: int, events_read: int) -> None:
        self.folder, self.attempt = folder, attempt
        self.metrics_end = 0
        self.last_step: Mapping[str, Any] | None = None
        self.last_eval: Mapping[str, Any] | None = None
        self._events_read = events_read

    def go_back(self, events_read: int) -> None:
        """Read events again from there: they could not be noted."""
        self._events_read = events_read

    def look_for_rows(self) -> bool:
        """Take in what was added to the rows; True if that is anything."""
        before = self.metrics_end
        while part := read_lines(rows_file(self.folder, self.attempt, self.attempt), self.metrics_end, _READ_BYTES):
            self.metrics_end += len(part)
            self.last_step = _last(part, b'{"kind": "step"') or self.last_step
            self.last_eval = _last(part, b'{"kind": "eval"') or self.last_eval
        return self.metrics_end > before

    def new_events(self) -> list[RunEvent]:
        """Events of this attempt that were added. One that is torn, by a runner that was killed, is left out."""
        found = []
        while part := read_lines(self.folder / "events.jsonl", self._events_read, _READ_BYTES):
            for line in part.splitlines(keepends=True):
                self._events_read += len(line)
                with contextlib.suppress(ValueError):
                    content = json.loads(line)
                    if isinstance(content, dict) and content.get("attempt") == self.attempt:
                        found.append(RunEvent(content, self._events_read))
        return found


def rows_file(folder: Path, attempt: int, present: int) -> Path:
    """Where the rows of an attempt are, while attempt `present` is the job's last. Until the rows of the attempt before
    were put aside, there are none of the present one."""
    aside, rows = _aside(folder, attempt), folder / "metrics.jsonl"
    if attempt < present:
        return aside if aside.exists() else rows
    return rows if attempt <= 1 or _aside(folder, attempt - 1).exists() else aside


def _aside(folder: Path, attempt: int) -> Path:
    return folder / f"metrics.attempt-{attempt}.jsonl"


def retire_attempt(folder: Path, attempt: int) -> None:
    """Put the rows of an attempt that was lost aside. Does nothing the second time; its runner must be gone."""
    folder.mkdir(parents=True, exist_ok=True)
    events = folder / "events.jsonl"
    if events.exists() and events.read_bytes()[-1:] not in (b"", b"\n"):
        with events.open("ab") as file:
            file.write(b"\n")  # a torn line must not swallow the first one of the next attempt
    aside, rows = _aside(folder, attempt), folder / "metrics.jsonl"
    if aside.exists():
        return
    if rows.exists():
        rows.rename(aside)
    else:
        aside.touch()


def read_lines(file: Path, start: int, most: int) -> bytes:
    """Whole lines from byte `start` on, about `most` bytes of them, but at least one; empty where there is none."""
    try:
        if most <= 0:
            return b""
        with file.open("rb") as opened:
            opened.seek(start)
            part = opened.read(most)
            while part and b"\n" not in part and (more := opened.read(most)):
                part += more
    except FileNotFoundError:
        return b""
    return part[: part.rfind(b"\n") + 1]


def _last(part: bytes, kind: bytes) -> Mapping[str, Any] | None:
    """The last line of a kind; rows begin as `run_dir` writes them."""
    place = part.rfind(kind)
    if place < 0:
        return None
    found: Mapping[str, Any] = json.loads(part[place : part.index(b"\n", place)])
    return found
