"""`pipeline.schedule: auto`: searches a schedule for the costs of a job's stages and the memory of its workers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

import numpy as np

from coordinator.job.spec import JobSpec
from coordinator.plan.memory_limit import MemoryLimit
from coordinator.plan.partition import ActionCosts, Bounds
from coordinator.program.table import ActionTable, Times
from coordinator.schedules.search import Fits, Found, Wanted, search
from stages.errors import InvalidJob

MOST_FORWARDS = 2**14
"""Forward passes, stages × micro-batches, of the largest step that is searched for: some ten seconds."""


def search_schedule(
    spec: JobSpec,
    bounds: Bounds,
    sizes: Sequence[int],
    costs: Sequence[ActionCosts],
    recompute: Collection[int] = frozenset(),
) -> Found | None:
    """Return the best program that is found for a cut and micro-batches of `sizes` rows; None if none fits into
    `resources.memory_per_worker`. Raises InvalidJob if the step is too large to search.

    `costs` are those of each operation, in any unit: counted or measured. Sending takes no time.
    """
    pipeline = spec.pipeline
    if (len(bounds) - 1) * len(sizes) > MOST_FORWARDS:
        raise InvalidJob(
            [
                f"pipeline.schedule: auto searches steps of at most {MOST_FORWARDS:,} forward passes, this one has "
                f"{(len(bounds) - 1) * len(sizes):,}; name a schedule"
            ]
        )
    assert pipeline.n_workers is not None, "only a schedule file has an unknown number of workers"
    return search(
        Wanted(
            n_stages=len(bounds) - 1,
            n_micro_batches=len(sizes),
            n_workers=pipeline.n_workers,
            times=_times(costs, bounds, recompute),
            fits=fits_into_memory(spec, bounds, sizes),
        )
    )


def _times(costs: Sequence[ActionCosts], bounds: Bounds, recompute: Collection[int]) -> Times:
    """Return the costs of F, I, W and B of each stage."""
    layers = np.array(costs, dtype=np.float64)
    stages = np.stack([layers[first:stop].sum(axis=0) for first, stop in pairwise(bounds)])
    for stage in recompute:
        stages[stage, 1] += stages[stage, 0]
    return np.column_stack([stages, stages[:, 1] + stages[:, 2]])


def fits_into_memory(spec: JobSpec, bounds: Bounds, sizes: Sequence[int]) -> Fits:
    """Return whether workers have the memory for a program of these stages."""
    limit, group = spec.resources.memory_per_worker, spec.pipeline.weight_grad_group
    if limit is None or spec.pipeline.recompute != "none":  # stages that recompute keep almost nothing
        return lambda table: True
    model, optimizer = spec.model_spec(), spec.optimizer()

    def fits(table: ActionTable) -> bool:
        holds = MemoryLimit(model, optimizer, table.program(), sizes, group, limit)
        return all(holds(stage, first, stop) for stage, (first, stop) in enumerate(pairwise(bounds)))

    return fits
