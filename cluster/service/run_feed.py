"""Reading a run directory while its runner writes it: whole lines only, each once.

The rows of the present attempt are in `metrics.jsonl`, those of one that was lost in `metrics.attempt-N.jsonl`, so that
`metrics.jsonl` never has a step twice; the same holds for `accounts.jsonl`. `events.jsonl` has the events of all
attempts, `timeline.json` the last picture of any.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from cluster.service.job_stats import JobStats
from cluster.service.old_counts import counts_from_zero, row_from_one, step_from_one
from coordinator import run_files
from coordinator.job.regular_files import open_regular

_READ_BYTES = 256 * 1024
_ROWS_AT_ONCE = 100  # taken in between two turns of the loop: about a millisecond
_UNREADABLE = (OSError, ValueError, KeyError, TypeError)  # what is not there, or was damaged
_TAIL_BYTES = 64 * 1024  # more than a line of accounts.jsonl


@dataclass(frozen=True, slots=True)
class RunEvent:
    """A line of events.jsonl, and where in the file it ends, in bytes."""

    content: Mapping[str, Any]
    end: int


class RunFeed:
    """Follows one attempt, and feeds `stats`. `metrics_end` is how far its rows are known, in bytes."""

    def __init__(self, folder: Path, attempt: int, events_read: int, stats: JobStats | None = None) -> None:
        self.folder, self.attempt, self._stats = folder, attempt, stats
        self._following = asyncio.Lock()
        self._accounts_size = 0
        self._timeline: tuple[int, int] | None = None  # inode and time of the file that was read last
        self._from_zero: bool | None = None  # see old_counts; known with the first row
        self.metrics_end = 0
        self.last_step: Mapping[str, Any] | None = None
        self.last_eval: Mapping[str, Any] | None = None
        self._events_read = events_read

    def go_back(self, events_read: int) -> None:
        """Read events again from there: they could not be noted."""
        self._events_read = events_read

    async def follow_rows(self) -> bool:
        """As `look_for_rows`, one caller at a time. Where there is much, after a restart of the service, a thread reads
        it; what was read is taken in here, a little at a time, for others look at the figures meanwhile."""
        async with self._following:
            before = self.metrics_end
            while self._unread() > _READ_BYTES and (lines := await asyncio.to_thread(self._read_rows)):
                await self._take_slowly(lines)
            await self._take_slowly(self._read_rows())
            return self.look_for_rows() or self.metrics_end > before

    async def _take_slowly(self, lines: Sequence[tuple[Any, int]]) -> None:
        for start in range(0, len(lines), _ROWS_AT_ONCE):
            self._take_rows(lines[start : start + _ROWS_AT_ONCE])
            if start + _ROWS_AT_ONCE < len(lines):
                await asyncio.sleep(0)

    def look_for_rows(self) -> bool:
        """Take in what was added to the rows; True if that is anything."""
        before = self.metrics_end
        while lines := self._read_rows():
            self._take_rows(lines)
        if self._stats is not None and self.metrics_end:  # only then it is known how they count
            self._look_at_accounts(self._stats)
            self._look_at_timeline(self._stats)
        return self.metrics_end > before

    def _unread(self) -> int:
        try:
            return rows_file(self.folder, self.attempt, self.attempt).stat().st_size - self.metrics_end
        except OSError:
            return 0

    def _read_rows(self) -> list[tuple[Any, int]]:
        """The next lines, each with its length in bytes; changes nothing. What is no row of ours is None."""
        part = read_lines(rows_file(self.folder, self.attempt, self.attempt), self.metrics_end, _READ_BYTES)
        return [(row_of(line), len(line)) for line in part.splitlines(keepends=True)]

    def _take_rows(self, lines: Sequence[tuple[Any, int]]) -> None:
        for found, size in lines:
            self.metrics_end += size
            if found is None:
                continue
            if self._from_zero is None:
                self._from_zero = counts_from_zero(found)
            with contextlib.suppress(*_UNREADABLE):
                row = row_from_one(found) if self._from_zero else found
                if self._stats is not None:
                    self._stats.take_row(row)
                if row["kind"] == "step":
                    self.last_step = row
                else:
                    self.last_eval = row

    def _look_at_accounts(self, stats: JobStats) -> None:
        """Only the last line counts: it has the totals."""
        if self.attempt > 1 and not _aside(self.folder, self.attempt - 1).exists():
            return  # what is there is still the attempt's before
        file = self.folder / run_files.ACCOUNTS
        with contextlib.suppress(*_UNREADABLE):
            size = file.stat().st_size
            if size != self._accounts_size and (part := read_lines(file, max(0, size - _TAIL_BYTES), _TAIL_BYTES)):
                line = dict(orjson.loads(part.splitlines()[-1]))
                line = step_from_one(line) if self._from_zero else line
                if float(line["ended"]):  # each look at the figures needs it
                    stats.accounts = line
                self._accounts_size = size

    def _look_at_timeline(self, stats: JobStats) -> None:
        with contextlib.suppress(*_UNREADABLE):
            with open_regular(self.folder / run_files.TIMELINE) as file:
                status = os.fstat(file.fileno())
                if self._timeline == (status.st_ino, status.st_mtime_ns):
                    return
                content = orjson.loads(file.read())
            self._timeline = status.st_ino, status.st_mtime_ns
            holders = [entry["worker"] for entry in content["memory"]]
            if content["attempt"] == self.attempt and all(isinstance(worker, int) for worker in holders):
                stats.timeline = step_from_one(content) if self._from_zero else content

    def new_events(self) -> list[RunEvent]:
        """Events of this attempt that were added. One that is torn, by a runner that was killed, is left out."""
        found = []
        while part := read_lines(self.folder / run_files.EVENTS, self._events_read, _READ_BYTES):
            for line in part.splitlines(keepends=True):
                self._events_read += len(line)
                with contextlib.suppress(ValueError, RecursionError):
                    content = json.loads(line)
                    if isinstance(content, dict) and content.get("attempt") == self.attempt:
                        found.append(RunEvent(content, self._events_read))
        return found


def row_of(line: bytes) -> dict[str, Any] | None:
    """A line of metrics.jsonl; None for what is no row: torn by a disk that was full, or damaged later."""
    try:
        row = orjson.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or row.get("kind") not in ("step", "eval"):
        return None
    whole = isinstance(row.get("loss"), int | float) and (row["kind"] == "eval" or isinstance(row.get("step"), int))
    return row if whole else None


def rows_file(folder: Path, attempt: int, present: int) -> Path:
    """Where the rows of an attempt are, while attempt `present` is the job's last. Until the rows of the attempt before
    were put aside, there are none of the present one."""
    aside, rows = _aside(folder, attempt), folder / run_files.METRICS
    if attempt < present:
        return aside if aside.exists() else rows
    return rows if attempt <= 1 or _aside(folder, attempt - 1).exists() else aside


def _aside(folder: Path, attempt: int) -> Path:
    return folder / run_files.of_attempt(run_files.METRICS, attempt)


def retire_attempt(folder: Path, attempt: int) -> None:
    """Put the rows of an attempt that was lost aside. Does nothing the second time; its runner must be gone."""
    folder.mkdir(parents=True, exist_ok=True)
    events = folder / run_files.EVENTS
    if events.exists() and _last_byte(events) not in (b"", b"\n"):
        with events.open("ab") as file:
            file.write(b"\n")  # a torn line must not swallow the first one of the next attempt
    accounts = folder / run_files.ACCOUNTS
    if accounts.exists() and not _aside(folder, attempt).exists():  # first: the rows put aside say that all is done
        accounts.rename(folder / run_files.of_attempt(run_files.ACCOUNTS, attempt))
    aside, rows = _aside(folder, attempt), folder / run_files.METRICS
    if aside.exists():
        return
    if rows.exists():
        rows.rename(aside)
    else:
        aside.touch()


def _last_byte(file: Path) -> bytes:
    with open_regular(file) as opened:
        opened.seek(max(0, opened.seek(0, os.SEEK_END) - 1))
        return opened.read(1)


def read_lines(file: Path, start: int, most: int) -> bytes:
    """Whole lines from byte `start` on, about `most` bytes of them, but at least one; empty where there is none."""
    try:
        if most <= 0:
            return b""
        with open_regular(file) as opened:
            opened.seek(start)
            part = opened.read(most)
            while part and b"\n" not in part and (more := opened.read(most)):
                part += more
    except FileNotFoundError:
        return b""
    return part[: part.rfind(b"\n") + 1]
