"""The figures of all jobs that run, and for a while of those that have ended; and counts over all jobs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from cluster.service.job_stats import STATS_KEPT_S, WAIT_BOUNDS_S, Distribution, JobStats
from cluster.service.records import JobRecord
from coordinator.queue.job_states import Failed, Recovering, Running, Starting

CLUSTER_LOST = "cluster_lost"
"""Why an attempt is followed by another: Ray ended it. There is no other cause yet."""


class StatsBoard:
    """`jobs` by id. Counts begin with the service: `failures` by kind, `ended_jobs` by state, `restarts` of attempts by
    cause, `queue_wait` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._since = clock, clock()
        self.jobs: dict[str, JobStats] = {}
        self.failures: Counter[str] = Counter()
        self.ended_jobs: Counter[str] = Counter()
        self.restarts: Counter[str] = Counter()
        self.queue_wait = Distribution(WAIT_BOUNDS_S)

    def begins(self, record: JobRecord) -> JobStats:
        """An attempt begins, or is found again; the figures to feed."""
        before = self.jobs.get(record.id)
        stats = JobStats(job=record.id, name=record.name, attempt=record.attempt)
        if record.started_at is not None:
            stats.queue_wait_seconds = record.started_at - record.submitted_at
            if before is None and record.attempt == 1 and record.started_at >= self._since:
                self.queue_wait.observe(stats.queue_wait_seconds)
        if isinstance(record.state, (Starting, Running)):
            stats.losses = record.state.lost
        self.jobs[record.id] = stats
        return stats

    def waits(self, record: JobRecord) -> None:
        """A job waits for its turn: because it is new, or because its processes were lost."""
        stats = self.jobs.get(record.id)
        if stats is not None and isinstance(record.state, Recovering) and record.state.lost > stats.losses:
            stats.losses = record.state.lost
            self.restarts[CLUSTER_LOST] += 1

    def ended(self, record: JobRecord) -> None:
        """A job has ended: its figures stay for STATS_KEPT_S."""
        self.ended_jobs[record.state.name] += 1
        if isinstance(record.state, Failed):
            self.failures[record.state.kind] += 1
        stats = self.jobs.get(record.id)
        if stats is not None:
            stats.ended_at = self._clock()

    def sweep(self) -> None:
        """Drop what was kept long enough."""
        limit = self._clock() - STATS_KEPT_S
        for job in [job for job, stats in self.jobs.items() if stats.ended_at is not None and stats.ended_at < limit]:
            del self.jobs[job]
