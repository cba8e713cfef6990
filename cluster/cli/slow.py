"""Why a run is slow, from the figures that a command has of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cluster.run.worker_times import Times, predicted_bubbles, worker_times
from coordinator.timing.slowness import why_slow

if TYPE_CHECKING:
    from cluster.client import WorkerFigures


def why_slow_here(account: Mapping[str, Any] | None, placement: Sequence[int], cpus: int | None) -> str | None:
    """Of a run in this process's hands: `account` is its last line of accounts.jsonl, `placement[s]` the worker of
    stage s, `cpus` what its workers share (None: they may be on several hosts)."""
    if account is None:
        return None
    times = worker_times(account, placement)
    stages = [[stage for stage, holder in enumerate(placement) if holder == worker] for worker in range(len(times))]
    return why_slow(times, stages, predicted_bubbles(account, placement), cpus=cpus)


def why_slow_there(workers: Sequence[WorkerFigures], times: Sequence[Times] | None = None) -> str | None:
    """Of a job of the service: over the whole attempt, or over the `times` of late."""
    predicted = [worker.bubble_predicted for worker in workers if worker.bubble_predicted is not None]
    return why_slow(
        [worker.microseconds for worker in workers] if times is None else times,
        [worker.stages for worker in workers],
        predicted if len(predicted) == len(workers) else None,
    )
