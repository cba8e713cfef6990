"""The metrics that Prometheus scrapes. All are in memory, except the count of jobs by state, which the store has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from cluster.service.job_stats import STATS_KEPT_S
from cluster.service.jobs import Jobs
from cluster.service.metrics_jobs import JobFacts, job_facts, job_text
from cluster.service.metrics_rpcs import RpcCounts
from cluster.service.metrics_service import ServiceFacts, service_metrics
from cluster.service.records import JobRecord
from coordinator.queue.job_states import Queued

PLAIN = "text/plain"
_OPENMETRICS = "application/openmetrics-text"
_END = b"# EOF\n"


class Metrics(Collector):
    """The metrics of one service. `registry` collects the service's own metrics and those of other collectors; the
    metrics of jobs follow them. `rpcs` has the counts that `CountRpcs` keeps.
    """

    def __init__(self, registry: CollectorRegistry, jobs: Jobs, *, ray_up: Callable[[], bool]) -> None:
        self._registry, self._jobs, self._ray_up = registry, jobs, ray_up
        self._started_at = time.time()
        self._ended: dict[str, JobRecord] = {}
        self.rpcs = RpcCounts()
        registry.register(self)

    async def scrape(self, accept: str = PLAIN) -> tuple[bytes, str]:
        """Return the text and its content type, in the format that the header Accept requests. Call it in the event
        loop; a thread makes the long part of the text."""
        head, content_type, openmetrics = self._head(accept)
        tail = await asyncio.to_thread(job_text, self._job_facts(), openmetrics=openmetrics)
        return _joined(head, tail, openmetrics), content_type

    def exposition(self, accept: str = PLAIN) -> tuple[bytes, str]:
        """As `scrape`, but without a thread."""
        head, content_type, openmetrics = self._head(accept)
        return _joined(head, job_text(self._job_facts(), openmetrics=openmetrics), openmetrics), content_type

    def describe(self) -> Iterator[Metric]:
        """Return nothing, so that the registry does not collect metrics only to learn their names."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the families of the service itself."""
        jobs = self._jobs
        waiting = (entry.record for entry in jobs.entries.values() if isinstance(entry.record.state, Queued))
        oldest = next(waiting, None)  # entries are in the order of their submission
        yield from service_metrics(
            ServiceFacts(
                started_at=self._started_at,
                ray_up=self._ray_up(),
                states=jobs.store.counts(),
                queue_limit=jobs.max_queued,
                oldest_wait=0.0 if oldest is None else max(0.0, time.time() - oldest.submitted_at),
                nodes=jobs.nodes,
                board=jobs.board,
                rpcs=self.rpcs,
            )
        )

    def _head(self, accept: str) -> tuple[bytes, str, bool]:
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type, content_type.startswith(_OPENMETRICS)

    def _job_facts(self) -> list[JobFacts]:
        """Return the facts of jobs that are active, or ended at most STATS_KEPT_S seconds ago."""
        now, found, ended = time.time(), [], {}
        for job, stats in self._jobs.board.jobs.items():
            entry = self._jobs.entries.get(job)
            record = entry.record if entry is not None else self._ended.get(job) or self._jobs.store.get(job)
            if record is None:
                continue  # deleted
            if record.state.ended:
                ended[job] = record
                if record.ended_at is not None and now - record.ended_at > STATS_KEPT_S:
                    continue
            found.append(job_facts(record, stats))
        self._ended = ended
        return found


def _joined(head: bytes, tail: str, openmetrics: bool) -> bytes:
    return head.removesuffix(_END) + tail.encode() + _END if openmetrics else head + tail.encode()
