"""Finds why a run is slow, from the last line of its accounts.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.run.worker_times import predicted_bubbles, worker_times
from coordinator.timing.slowness import why_slow


def why_slow_of(account: Mapping[str, Any] | None, placement: Sequence[int], cpus: int | None = None) -> str | None:
    """Return the main cause and what to try; None if there is no clear cause. `account` is the run's last line of
    accounts.jsonl, `placement[s]` the worker of stage s, `cpus` the number of CPUs that the workers share (None: they
    may be on several hosts)."""
    if account is None or len(placement) != len(account["stage_us"]):
        return None
    times = worker_times(account, placement)
    stages = [[stage for stage, holder in enumerate(placement) if holder == worker] for worker in range(len(times))]
    return why_slow(times, stages, predicted_bubbles(account, placement), cpus=cpus)
