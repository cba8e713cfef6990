"""The figures of jobs that have ended, read from their run directories when a page shows one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import orjson

from cluster.service.job_stats import JobStats
from cluster.service.jobs import Jobs
from cluster.service.records import JobRecord
from cluster.service.run_feed import RunFeed
from coordinator import run_files
from coordinator.job.regular_files import open_regular

_KEPT = 16
_SPARK_POINTS = 32
_SPARKS_KEPT = 500
_LINE_BYTES = 4096  # longer than a row of metrics


class StatsArchive:
    """The figures of any job: the present ones of an active job, the last ones of a job that has ended."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._kept: OrderedDict[tuple[str, int], JobStats] = OrderedDict()
        self._sparks: OrderedDict[str, list[float]] = OrderedDict()

    def at_hand(self, record: JobRecord) -> JobStats | None:
        """Return the figures if they are in memory."""
        stats = self._jobs.board.jobs.get(record.id)
        return stats if stats is not None else self._kept.get((record.id, record.attempt))

    async def stats(self, record: JobRecord) -> JobStats | None:
        """Return the figures, read from the run directory if needed; None for a job that never started."""
        found = self.at_hand(record)
        if found is not None or record.attempt < 1 or not record.state.ended:
            return found
        folder = self._jobs.home.run_directory(record.id)
        found = await asyncio.to_thread(_read, folder, record)
        self._kept[record.id, record.attempt] = found
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return found

    async def sparks(self, records: Sequence[JobRecord]) -> dict[str, list[float]]:
        """Return a short series of each job's loss, by id."""
        found = {}
        missing = []
        for record in records:
            stats = self.at_hand(record)
            if stats is not None:
                found[record.id] = _thinned([value for _, value in stats.series["loss"].points])
            elif record.id in self._sparks:
                found[record.id] = self._sparks[record.id]
            elif record.state.ended and record.attempt:
                missing.append(self._jobs.home.run_directory(record.id) / run_files.METRICS)
        if missing:
            for file, spark in zip(missing, await asyncio.to_thread(_losses, missing), strict=True):
                found[file.parent.name] = self._sparks[file.parent.name] = spark
            while len(self._sparks) > _SPARKS_KEPT:
                self._sparks.popitem(last=False)
        return found


def _read(folder: Path, record: JobRecord) -> JobStats:
    stats = JobStats(job=record.id, name=record.name, attempt=record.attempt)
    RunFeed(folder, record.attempt, record.events_read, stats).look_for_rows()
    stats.ended_at = record.ended_at
    return stats


def _thinned(values: Sequence[float]) -> list[float]:
    """Return at most _SPARK_POINTS of the values, evenly spaced, including the last one."""
    if len(values) <= _SPARK_POINTS:
        return list(values)
    last = len(values) - 1
    return [values[round(i * last / (_SPARK_POINTS - 1))] for i in range(_SPARK_POINTS)]


def _losses(files: Sequence[Path]) -> list[list[float]]:
    return [_sampled_losses(file) for file in files]


def _sampled_losses(file: Path) -> list[float]:
    """Read the losses of a few steps, evenly spaced in the file. Reading all of a long file would take too long for a
    small picture."""
    found: dict[int, float] = {}
    try:
        with open_regular(file) as opened:
            size = file.stat().st_size
            for i in range(_SPARK_POINTS):
                start = max(0, i * (size - _LINE_BYTES) // (_SPARK_POINTS - 1))
                opened.seek(start)
                lines = opened.read(_LINE_BYTES).splitlines()
                whole = lines[1:] if start else lines
                rows = [row for row in map(_step, whole) if row is not None]
                found.update(rows[-1:] if i == _SPARK_POINTS - 1 else rows[:1])
    except OSError:
        return []
    return [loss for _, loss in sorted(found.items())]


def _step(line: bytes) -> tuple[int, float] | None:
    """Return the number and the loss of a step's row; None if the line is no complete row of a step."""
    try:
        row = orjson.loads(line)
        return (row["step"], row["loss"]) if row["kind"] == "step" else None
    except (ValueError, KeyError, TypeError):
        return None
