"""The service's own metrics, as a collector of `prometheus_client`."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from cluster.service import metric_families as families
from cluster.service.job_stats import Distribution
from cluster.service.metric_families import Family
from cluster.service.metrics_jobs import FAILURE_KINDS, OTHER_KIND, failure_kind
from cluster.service.metrics_rpcs import RpcCounts
from cluster.service.stats_board import CLUSTER_LOST, StatsBoard
from coordinator.queue.job_states import STATE_NAMES, STATES

_ENDED = tuple(state.name for state in STATES if state.ended)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    """The service's own figures in a scrape. `oldest_wait` is in seconds; `nodes` come from the Ray agent."""

    started_at: float
    ray_up: bool
    states: Mapping[str, int]
    queue_limit: int
    oldest_wait: float
    nodes: Sequence[Mapping[str, Any]]
    board: StatsBoard
    rpcs: RpcCounts


def service_metrics(facts: ServiceFacts) -> Iterator[Metric]:
    """Yield all families of the service. Each value that a label can have is shown from the start, as 0: Prometheus
    does not count the first event of a series that appears with it."""
    yield _family(families.BUILD_INFO, {(version("pipetrain"), platform.python_version()): 1})
    yield _family(families.START_TIME, {(): facts.started_at})
    yield _family(families.RAY_UP, {(): float(facts.ray_up)})
    yield _family(families.JOBS, {(state,): facts.states.get(state, 0) for state in STATE_NAMES})
    yield _family(families.QUEUE_LIMIT, {(): facts.queue_limit})
    yield _family(families.QUEUE_OLDEST, {(): facts.oldest_wait})
    board = facts.board
    yield _family(families.JOBS_ENDED, {(state,): board.ended_jobs[state] for state in _ENDED})
    failures = dict.fromkeys((*FAILURE_KINDS, OTHER_KIND), 0)
    for kind, count in list(board.failures.items()):
        failures[failure_kind(kind)] += count
    yield _family(families.JOB_FAILURES, {(kind,): count for kind, count in failures.items()})
    yield _family(families.RESTARTS, {(cause,): board.restarts[cause] for cause in {CLUSTER_LOST, *board.restarts}})
    yield _histogram(families.QUEUE_WAIT, {(): board.queue_wait})
    yield from _cluster(facts.nodes)
    yield _family(families.RPCS, facts.rpcs.finished)
    yield _family(families.RPCS_OPEN, {(method,): count for method, count in facts.rpcs.open.items()})
    yield _histogram(families.RPC_SECONDS, {(method,): found for method, found in facts.rpcs.seconds.items()})


def _cluster(nodes: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    yield _family(families.NODES, {(): len(nodes)})
    for family, key in (
        (families.CPUS, "cpus"),
        (families.CPUS_USED, "cpus_used"),
        (families.MEMORY, "memory"),
        (families.MEMORY_USED, "memory_used"),
    ):
        yield _family(family, {(): sum(node[key] for node in nodes)})


def _family(family: Family, values: Mapping[Any, float]) -> Metric:
    """Return a metric. The keys of `values` are tuples of label values."""
    make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = make(family.name, family.help, labels=family.labels)
    for labels, value in values.items():
        metric.add_metric(labels, value)
    return metric


def _histogram(family: Family, values: Mapping[tuple[str, ...], Distribution]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for labels, found in values.items():
        metric.add_metric(labels, buckets=found.cumulative(), sum_value=found.sum)
    return metric
