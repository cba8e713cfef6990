"""Find out from the figures of a job of the service why it is slow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cluster.run.worker_times import Times
from coordinator.timing.slowness import why_slow

if TYPE_CHECKING:
    from cluster.client import WorkerFigures


def why_slow_there(workers: Sequence[WorkerFigures], times: Sequence[Times] | None = None) -> str | None:
    """Return why a job of the service is slow, None if there is no clear cause. It looks at the workers' times over the
    whole attempt, or at `times`, if given."""
    predicted = [worker.bubble_predicted for worker in workers if worker.bubble_predicted is not None]
    return why_slow(
        [worker.microseconds for worker in workers] if times is None else times,
        [worker.stages for worker in workers],
        predicted if len(predicted) == len(workers) else None,
    )
