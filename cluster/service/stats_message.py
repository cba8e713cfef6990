"""Converts a job's figures into a message of the interface."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.run.worker_times import predicted_bubbles, worker_times
from cluster.service.job_stats import JobStats
from cluster.wire import pipetrain_pb2 as pb
from coordinator.timing.durations import STEP_MEAN, STEP_MEDIAN
from coordinator.train.rows import SERIES

_LOSSES = 120
_NAMED = frozenset(SERIES) & frozenset(pb.JobStats.DESCRIPTOR.fields_by_name)


def stats_message(stats: JobStats) -> pb.JobStats:
    """Return the figures of a job's present attempt. Speed and bubble are means over the last steps."""
    durations = stats.recent.durations
    recent = {
        "samples_per_second": stats.recent.samples_per_second,
        "bubble": stats.recent.bubble,
        STEP_MEAN: durations.mean,
        STEP_MEDIAN: durations.median,
    }
    latest = {**stats.latest, **{name: value for name, value in recent.items() if value is not None}}
    return pb.JobStats(
        id=stats.job,
        attempt=stats.attempt,
        step=stats.steps,
        **{name: latest[name] for name in _NAMED if name in latest},
        figures=latest,
        losses=evenly([value for _, value in stats.series["loss"].points], _LOSSES),
        workers=_workers(stats),
    )


def evenly(values: Sequence[float], most: int) -> list[float]:
    """Return at most `most` of the values, evenly spaced, with the last value as the last."""
    if len(values) <= most:
        return list(values)
    return [values[((place + 1) * len(values) - 1) // most] for place in range(most)]


def _workers(stats: JobStats) -> list[pb.WorkerStats]:
    placement, accounts = stats.placement, stats.accounts
    if accounts is None or stats.timeline is None or not placement:
        return []
    predicted = predicted_bubbles(accounts, placement)
    places = {place["worker"]: place for place in stats.timeline["workers"]}
    found = []
    for worker, times in enumerate(worker_times(accounts, placement)):
        place = places.get(worker, {})
        found.append(
            pb.WorkerStats(
                worker=worker,
                host=place.get("host", ""),
                pid=place.get("pid") or 0,
                stages=[stage for stage, holder in enumerate(placement) if holder == worker],
                microseconds=times,
                bubble_predicted=None if predicted is None else predicted[worker],
                peak_rss_bytes=place.get("peak_rss_bytes"),
                peak_job_bytes=place.get("peak_job_bytes"),
                limit_bytes=place.get("limit_bytes"),
            )
        )
    return found
