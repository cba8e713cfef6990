"""The figures of all running and lately ended jobs, and counts over all jobs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from cluster.service.job_stats import STATS_KEPT_S, WAIT_BOUNDS_S, Distribution, JobStats
from cluster.service.records import JobRecord
from coordinator.queue.job_states import Failed, Recovering, Running, Starting

CLUSTER_LOST = "cluster_lost"
"""The cause of a restart: Ray ended the attempt. There is no other cause yet."""


class StatsBoard:
    """The figures of jobs: `jobs` by job id. Counts start at 0 when the service starts: `failures` by kind,
    `ended_jobs` by state, `restarts` of attempts by cause, `queue_wait` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._since = clock, clock()
        self.jobs: dict[str, JobStats] = {}
        self.failures: Counter[str] = Counter()
        self.ended_jobs: Counter[str] = Counter()
        self.restarts: Counter[str] = Counter()
        self.queue_wait = Distribution(WAIT_BOUNDS_S)

    def begins(self, record: JobRecord) -> JobStats:
        """Return new figures for an attempt that begins or is found again."""
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
        """Count a restart if the job waits because its processes were lost."""
        stats = self.jobs.get(record.id)
        if stats is not None and isinstance(record.state, Recovering) and record.state.lost > stats.losses:
            stats.losses = record.state.lost
            self.restarts[CLUSTER_LOST] += 1

    def ended(self, record: JobRecord) -> None:
        """Count the end of a job. Its figures are kept for STATS_KEPT_S seconds."""
        self.ended_jobs[record.state.name] += 1
        if isinstance(record.state, Failed):
            self.failures[record.state.kind] += 1
        stats = self.jobs.get(record.id)
        if stats is not None:
            stats.ended_at = self._clock()

    def sweep(self) -> None:
        """Remove the figures of jobs that ended more than STATS_KEPT_S seconds ago."""
        limit = self._clock() - STATS_KEPT_S
        for job in [job for job, stats in self.jobs.items() if stats.ended_at is not None and stats.ended_at < limit]:
            del self.jobs[job]
