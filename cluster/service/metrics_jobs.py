"""The jobs' metrics as text. A scrape has thousands of series that change with every step; `prometheus_client` needs
130 to 180 ms to write 50 jobs of 8 stages. This module makes the text before each value only once
(`benchmarks/metrics.py`).

[Note: one moment] `job_facts` copies a job's figures at one moment, in the event loop; a thread may then make the text,
and its figures still belong together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from cluster.service import metric_families as families
from cluster.service.job_stats import JobStats
from cluster.service.metric_families import Family
from cluster.service.records import JobRecord
from cluster.service.survival import CAUSES, RESULTS, Survival
from coordinator.queue.job_states import STATE_NAMES, Failed
from coordinator.timing.accounts import recent_bubble
from stages.ledger import STAGE_KINDS, WORKER_KINDS

Value = float | None
FAILURE_KINDS = (
    *("StageFailed", "WorkerLost", "WorkerHung", "NonFinite", "RunnerLost", "ClusterLost", "JobFailed"),
    *("HostFailed", "UnexpectedError", "Unstorable"),
    *("InvalidJob", "InvalidData", "InvalidSchedule", "NotEnoughResources", "UserMistake"),
)
OTHER_KIND = "other"
_HELD = ("weights", "gradients", "optimizer", "activations")
_REMEMBERED = 256  # jobs whose text before the values is kept


@dataclass(frozen=True, slots=True)
class JobFacts:
    """The figures of one job in a scrape. `values` are by family; `kinds` by (family, value of its second label).

    `step_seconds` has pairs (upper bound, number of values up to it), `placement[s]` is the worker of stage s.
    """

    job: str
    name: str
    state: str
    failure: str | None
    values: Mapping[Family, Value]
    kinds: Mapping[tuple[Family, str], Value]
    step_seconds: Sequence[tuple[str, float]]
    step_seconds_sum: float
    placement: tuple[int, ...]
    accounts: Mapping[str, Any] | None
    timeline: Mapping[str, Any] | None


def job_facts(record: JobRecord, stats: JobStats) -> JobFacts:
    """Return the job's present figures. See [Note: one moment]."""
    state, latest = record.state, stats.latest
    return JobFacts(
        job=record.id,
        name=record.name,
        state=state.name,
        failure=failure_kind(state.kind) if isinstance(state, Failed) else None,
        values={
            families.JOB_STARTED: record.started_at,
            families.JOB_ENDED: record.ended_at,
            families.JOB_WAIT: stats.queue_wait_seconds,
            families.ATTEMPT: stats.attempt,
            families.LOST_ATTEMPTS: stats.losses,
            families.STEPS_PLANNED: record.steps_total,
            families.STEPS: stats.steps,
            families.SAMPLES: stats.samples,
            families.LAST_STEP: stats.last_step_at,
            families.BUBBLE: _bubble(stats.accounts),
            **{family: latest.get(name) for name, (family, kind) in families.FIGURES.items() if kind is None},
            **_survival_values(stats.survival),
        },
        kinds={
            **{(family, kind): latest.get(name) for name, (family, kind) in families.FIGURES.items() if kind},
            **_survival_kinds(stats.survival),
        },
        step_seconds=stats.step_seconds.cumulative(),
        step_seconds_sum=stats.step_seconds.sum,
        placement=tuple(stats.placement),
        accounts=stats.accounts,
        timeline=stats.timeline,
    )


def _survival_values(survival: Survival) -> dict[Family, Value]:
    newest = survival.newest
    of_newest: dict[Family, Value] = {}
    if newest is not None:
        of_newest = {
            families.CHECKPOINT_STEP: newest.step,
            families.CHECKPOINT_TIME: newest.time,
            families.CHECKPOINT_BYTES: newest.n_bytes,
            families.CHECKPOINT_SECONDS: newest.seconds,
            families.CHECKPOINT_STALL: newest.stall_seconds,
        }
    return {
        **of_newest,
        families.CHECKPOINT_INTERVAL: survival.interval_s,
        families.RECOVERIES: survival.recoveries,
        families.RECOVERY_SECONDS: survival.recovery_seconds,
        families.LAST_RECOVERY: survival.last_recovery_s,
        families.STEPS_AGAIN: survival.steps_again,
    }


def _survival_kinds(survival: Survival) -> dict[tuple[Family, str], Value]:
    """Return the counts by label. Each value that a label can have is shown from the start, as 0: Prometheus does not
    count the first event of a series that appears with it."""
    checkpoints = {(families.CHECKPOINTS, result): survival.results[result] for result in RESULTS}
    lost = {(families.WORKERS_LOST, label_of(cause)): survival.lost[cause] for cause in (*CAUSES, OTHER_KIND)}
    return {**checkpoints, **lost}


def label_of(cause: str) -> str:
    """Return the cause of a loss as a label's value."""
    return cause.replace(" ", "_")


def failure_kind(kind: str) -> str:
    """Return the kind of a failure as a label's value, one of a short list."""
    return kind if kind in FAILURE_KINDS else OTHER_KIND


def job_text(jobs: Sequence[JobFacts], *, openmetrics: bool) -> str:
    """Return all families of jobs in Prometheus' text format, or in OpenMetrics' without its last line."""
    lines: dict[Family, list[str]] = {}
    for facts in jobs:
        for family, more in _told_families(facts):
            lines.setdefault(family, []).extend(more)
    parts = []
    for family, found in lines.items():
        if found:
            parts += [family.head(openmetrics), "\n".join(found), "\n"]
    return "".join(parts)


def number(value: float) -> str:
    """Return a value as both text formats write it."""
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def label(text: str) -> str:
    """Return a label's value, escaped."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


_OF_DAMAGE = (KeyError, IndexError, TypeError, ValueError, AttributeError, ZeroDivisionError)


def _bubble(accounts: Mapping[str, Any] | None) -> Value:
    try:
        return None if accounts is None else recent_bubble(accounts)
    except _OF_DAMAGE:
        return None


def _told_families(facts: JobFacts) -> Iterator[tuple[Family, list[str]]]:
    """As `_families`, but without what cannot be read: one job's damaged files must not hide the other jobs."""
    try:
        found = [(family, list(lines)) for family, lines in _families(facts)]
    except _OF_DAMAGE:
        without = replace(facts, accounts=None, timeline=None)
        found = [(family, list(lines)) for family, lines in _families(without)]
    yield from found


def _families(facts: JobFacts) -> Iterator[tuple[Family, Iterable[str]]]:
    """Yield each family with the job's lines, if any. The order of families is the same for every job."""
    job = facts.job
    yield families.JOB_INFO, [f'pipetrain_job_info{{job="{job}",name="{label(facts.name)}"}} 1']
    yield families.JOB_STATE, [f"{begin}{int(state == facts.state)}" for state, begin in _states(job)]
    failed = () if facts.failure is None else [f"{_begin(families.JOB_FAILURE, job, facts.failure)}1"]
    yield families.JOB_FAILURE, failed
    for family, value in facts.values.items():
        yield family, () if value is None else (f'{family.name}{{job="{job}"}} {number(value)}',)
    for (family, kind), value in facts.kinds.items():
        yield family, () if value is None else (_begin(family, job, kind) + number(value),)
    yield families.STEP_SECONDS, _histogram(families.STEP_SECONDS, facts)
    yield from _account_families(job, facts.placement, facts.accounts)
    yield from _timeline_families(job, facts.timeline)


def _histogram(family: Family, facts: JobFacts) -> Iterator[str]:
    for bound, count in facts.step_seconds:
        yield f'{family.name}_bucket{{job="{facts.job}",le="{bound}"}} {count}'
    yield f'{family.name}_count{{job="{facts.job}"}} {facts.step_seconds[-1][1]}'
    yield f'{family.name}_sum{{job="{facts.job}"}} {number(facts.step_seconds_sum)}'


def _account_families(
    job: str, placement: tuple[int, ...], accounts: Mapping[str, Any] | None
) -> Iterator[tuple[Family, Iterable[str]]]:
    line = accounts or {"stage_us": [], "worker_us": [], "links": [], "bubble": [], "predicted": None}
    by_stage, by_worker = line["stage_us"], line["worker_us"]
    values = [us for row in by_stage for us in row] + [us for row in by_worker for us in row]
    known = len(placement) == len(
        by_stage
    )  # accounts may be written a moment before the timeline, which has the workers
    begins = _seconds(job, placement, len(by_worker)) if known else ()
    yield families.STAGE_SECONDS, [f"{begin}{us / 1e6}" for begin, us in zip(begins, values, strict=known)]
    for family, shares in (
        (families.STAGE_BUBBLE, line["bubble"]),
        (families.STAGE_BUBBLE_PREDICTED, line["predicted"] or ()),
    ):
        yield family, [f"{_begin(family, job, str(stage))}{share}" for stage, share in enumerate(shares)]
    for family, column in ((families.LINK_BYTES, 3), (families.LINK_MESSAGES, 2)):
        yield family, [f"{_begin(family, job, str(link[0]), str(link[1]))}{link[column]}" for link in line["links"]]


def _timeline_families(job: str, timeline: Mapping[str, Any] | None) -> Iterator[tuple[Family, Iterable[str]]]:
    memory, workers = (timeline["memory"], timeline["workers"]) if timeline else ((), ())
    held, predicted = families.STAGE_BYTES, families.STAGE_BYTES_PREDICTED
    places = [(str(entry["stage"]), str(entry["worker"]), entry) for entry in memory]
    yield held, [f"{_begin(held, job, *place, kind)}{entry[kind]}" for *place, entry in places for kind in _HELD]
    yield predicted, [f"{_begin(predicted, job, *place)}{entry['activations_predicted']}" for *place, entry in places]
    for family, key in (
        (families.WORKER_RSS, "peak_rss_bytes"),
        (families.WORKER_JOB_PEAK, "peak_job_bytes"),
        (families.WORKER_LIMIT, "limit_bytes"),
    ):
        known = [entry for entry in workers if entry[key] is not None]
        yield family, [f"{_begin(family, job, str(entry['worker']))}{entry[key]}" for entry in known]


@lru_cache(maxsize=200 * _REMEMBERED)
def _begin(family: Family, *values: str) -> str:
    """Return the text before the value. `values` are words and numbers, which need no escaping."""
    labels = ",".join(f'{name}="{value}"' for name, value in zip(family.labels, values, strict=True))
    return f"{family.name}{{{labels}}} "


@lru_cache(maxsize=_REMEMBERED)
def _states(job: str) -> tuple[tuple[str, str], ...]:
    return tuple((state, _begin(families.JOB_STATE, job, state)) for state in STATE_NAMES)


@lru_cache(maxsize=_REMEMBERED)
def _seconds(job: str, placement: tuple[int, ...], n_workers: int) -> tuple[str, ...]:
    """Return the texts before the values in the order of the accounts: by stage and kind, then by worker and kind."""
    family, found = families.STAGE_SECONDS, list[str]()
    for stage, worker in enumerate(placement):
        for name in STAGE_KINDS:
            kind, _, cause = name.partition("_") if name.startswith("wait_") else (name, "", "")
            found.append(_begin(family, job, str(stage), str(worker), kind, cause))
    for worker in range(n_workers):
        first = placement.index(worker) if worker in placement else worker
        found += [_begin(family, job, str(first), str(worker), kind, "") for kind in WORKER_KINDS]
    return tuple(found)
