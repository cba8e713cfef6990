"""Reads a run directory while its runner writes it: whole lines only, each once.

`metrics.jsonl` has the rows of the present attempt and `metrics.attempt-N.jsonl` those of lost attempt N, so that
`metrics.jsonl` never has a step twice; the same holds for `accounts.jsonl`. `events.jsonl` has the events of all
attempts, `timeline.json` the last timeline of any attempt.
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

from cluster.service.job_stats import JobStats, row_loss, take_step
from cluster.service.old_counts import counts_from_zero, row_from_one, step_from_one
from coordinator import run_files
from coordinator.job.regular_files import open_regular
from coordinator.timing.epoch_means import EpochMeans

_READ_BYTES = 256 * 1024
_ROWS_AT_ONCE = 100  # handled in one turn of the event loop, in about a millisecond
_UNREADABLE = (OSError, ValueError, KeyError, TypeError)  # raised for a missing or damaged file
_TAIL_BYTES = 64 * 1024  # more than a line of accounts.jsonl


@dataclass(frozen=True, slots=True)
class RunEvent:
    """A line of events.jsonl, and the offset in bytes at which it ends."""

    content: Mapping[str, Any]
    end: int


class RunFeed:
    """Follows one attempt and updates `stats`. `metrics_end` is the number of bytes of its rows read so far."""

    def __init__(self, folder: Path, attempt: int, events_read: int, stats: JobStats | None = None) -> None:
        self.folder, self.attempt, self._stats = folder, attempt, stats
        self._following = asyncio.Lock()
        self._accounts_size = 0
        self._survival_read = 0  # bytes of events.jsonl
        self._timeline: tuple[int, int] | None = None  # inode and modification time of the last file read
        self._from_zero: bool | None = None  # see old_counts; None before the first row
        self.metrics_end = 0
        self.last_step: Mapping[str, Any] | None = None
        self.last_eval: Mapping[str, Any] | None = None
        self.means = EpochMeans()
        self.best_validation_loss: float | None = None
        self._events_read = events_read

    @property
    def samples_per_second(self) -> float | None:
        """The speed of the last steps; None without `stats` and before the first step."""
        return None if self._stats is None else self._stats.recent.samples_per_second

    def go_back(self, events_read: int) -> None:
        """Read events again from this offset, because they could not be noted."""
        self._events_read = events_read

    async def follow_rows(self) -> bool:
        """As `look_for_rows`, one caller at a time. If there is much to read, as after a restart of the service, a
        thread reads it. This coroutine handles the rows in small portions, so that the event loop is never blocked."""
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
        """Read the rows that were added; return whether there were any."""
        before = self.metrics_end
        while lines := self._read_rows():
            self._take_rows(lines)
        if self._stats is not None and self.metrics_end:  # the first row shows whether steps count from 0
            self._look_at_accounts(self._stats)
            self._look_at_timeline(self._stats)
        return self._look_at_survival() or self.metrics_end > before

    def _unread(self) -> int:
        try:
            return rows_file(self.folder, self.attempt, self.attempt).stat().st_size - self.metrics_end
        except OSError:
            return 0

    def _read_rows(self) -> list[tuple[Any, int]]:
        """Return the next lines as (row, length in bytes). A line that is not a valid row is None. Changes nothing."""
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
                    take_step(self.means, row)
                else:
                    self.last_eval = row
                    loss, best = row_loss(row), self.best_validation_loss
                    self.best_validation_loss = loss if best is None else min(loss, best)

    def _look_at_accounts(self, stats: JobStats) -> None:
        """Read the last line of accounts.jsonl, which has the totals."""
        if self.attempt > 1 and not _aside(self.folder, self.attempt - 1).exists():
            return  # the file is still that of the previous attempt
        file = self.folder / run_files.ACCOUNTS
        with contextlib.suppress(*_UNREADABLE):
            size = file.stat().st_size
            if size != self._accounts_size and (part := read_lines(file, max(0, size - _TAIL_BYTES), _TAIL_BYTES)):
                line = dict(orjson.loads(part.splitlines()[-1]))
                line = step_from_one(line) if self._from_zero else line
                if float(line["ended"]):  # a line without it would break later readers
                    stats.accounts = line
                self._accounts_size = size

    def _look_at_survival(self) -> bool:
        """Read the events of all attempts that tell of checkpoints and recoveries; return whether there were any."""
        if self._stats is None:
            return False
        survival = self._stats.survival
        before = survival.version
        while part := read_lines(self.folder / run_files.EVENTS, self._survival_read, _READ_BYTES):
            self._survival_read += len(part)
            for line in part.splitlines():
                with contextlib.suppress(*_UNREADABLE):
                    survival.take(orjson.loads(line))
        return survival.version > before

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
        """Return the added events of this attempt, without lines that a killed runner left unfinished."""
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
    """Return a line of metrics.jsonl as a row; None if it is not valid, after a full disk or other damage."""
    try:
        row = orjson.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or row.get("kind") not in ("step", "eval"):
        return None
    whole = isinstance(row.get("loss"), int | float) and (row["kind"] == "eval" or isinstance(row.get("step"), int))
    return row if whole else None


def rows_file(folder: Path, attempt: int, present: int) -> Path:
    """Return the file with the rows of an attempt, while attempt `present` is the job's last one. The present attempt
    has no rows until those of the previous one are moved aside: the file returned for it then does not exist."""
    aside, rows = _aside(folder, attempt), folder / run_files.METRICS
    if attempt < present:
        return aside if aside.exists() else rows
    return rows if attempt <= 1 or _aside(folder, attempt - 1).exists() else aside


def _aside(folder: Path, attempt: int) -> Path:
    return folder / run_files.of_attempt(run_files.METRICS, attempt)


def retire_attempt(folder: Path, attempt: int) -> None:
    """Move the rows of a lost attempt aside. Its runner must be gone. A second call does nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    events = folder / run_files.EVENTS
    if events.exists() and _last_byte(events) not in (b"", b"\n"):
        with events.open("ab") as file:
            file.write(b"\n")  # else the next attempt's first line joins an unfinished one
    accounts = folder / run_files.ACCOUNTS
    if accounts.exists() and not _aside(folder, attempt).exists():  # first: the moved rows mark the end of this
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
    """Return whole lines from byte `start` on: at least one, if there is one, and about `most` bytes."""
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
