"""Which candidates for a job's settings have enough memory: those that may be measured and chosen. No I/O."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace

from coordinator.plan.candidates import Candidate, Candidates
from coordinator.plan.estimate import estimate
from coordinator.texts import size
from stages.errors import InvalidJob, NotEnoughResources

RUNTIME_BYTES = 200 * 2**20
"""Memory of a worker process that has no data yet."""
_EACH = 2
"""How many candidates of each number of workers and micro-batches may be compared, at least."""


class MemoryOf:
    """Counts the memory of candidates, for data of `data_bytes` and an evaluation of `validation_rows`.

    Besides the job's limit for a worker, `free` may limit the bytes of all its processes together.
    """

    def __init__(self, *, data_bytes: int, validation_rows: int, free: int | None = None) -> None:
        self._data_bytes, self._validation_rows, self._free = data_bytes, validation_rows, free

    def __call__(self, candidate: Candidate) -> Candidate:
        """Return the candidate with the bytes of the worker that needs most, and why it is refused if it is."""
        plan = estimate(candidate.blueprint, data_bytes=self._data_bytes, validation_rows=self._validation_rows)
        most = max(plan.workers, key=lambda worker: worker.total)
        together = sum(worker.total + RUNTIME_BYTES for worker in plan.workers)
        refusal = None
        if not most.fits:
            refusal = f"needs {size(most.total, 'up')} a worker"
        elif self._free is not None and together > self._free:
            refusal = f"its workers need {size(together, 'up')}, this machine has {size(self._free, 'down')} free"
        parameters = sum(s.memory.weights + s.memory.gradients + s.memory.optimizer for s in plan.stages)
        return replace(candidate, memory=most.total, parameters=parameters, refusal=refusal)


def those_that_fit(
    found: Candidates, most: int, memory_of: MemoryOf, *, recomputes: bool = True, compares: bool = True
) -> tuple[list[Candidate], list[Candidate]]:
    """Return the best `most` candidates whose workers have enough memory, and those before them that were refused. With
    `compares`, the former have the best two for each number of workers and micro-batches, too.

    Settings that do not fit are tried with `recompute: auto` too if `recomputes`. Raises NotEnoughResources, with the
    least need, if none fits; InvalidJob if there are no candidates.
    """
    fitting, refused = list[Candidate](), list[Candidate]()
    heap = [(candidate.predicted.seconds, place, candidate) for place, candidate in enumerate(found.ranked())]
    if not heap:
        raise InvalidJob(["pipeline: no settings are left to try: what must stay does not go together here"])
    heapq.heapify(heap)
    n, limit = len(heap), found.memory_limit
    while heap and len(fitting) < most:
        _, place, candidate = heapq.heappop(heap)
        counted = memory_of(candidate)
        if counted.refusal is None:
            fitting.append(counted)
            continue
        refused.append(counted)
        if limit is not None and counted.parameters > found.most_workers * limit:  # the parameters alone are too much
            break
        if recomputes and limit is not None and candidate.settings.recompute == "none":
            again = found.add(replace(candidate.settings, recompute="auto"))
            if again is not None:
                heapq.heappush(heap, (again.predicted.seconds, n + place, again))
    if not fitting:
        sparing = [memory_of(one) for one in found.sparing()]
        fitting = [one for one in sparing if one.refusal is None]
        if not fitting:
            raise NotEnoughResources(_no_room([*refused, *sparing], limit))
    for candidate in found.ranked() if compares else ():
        pair = candidate.settings.workers, candidate.settings.micro_batches
        alike = [one for one in fitting if (one.settings.workers, one.settings.micro_batches) == pair]
        if len(alike) >= _EACH or any(one.settings == candidate.settings for one in alike):
            continue
        counted = memory_of(candidate)
        fitting += [counted] if counted.refusal is None else []
    return sorted(fitting, key=lambda candidate: candidate.predicted.seconds), refused


def _no_room(refused: Sequence[Candidate], limit: int | None) -> str:
    least = min(refused, key=lambda candidate: (candidate.memory or 0, candidate.settings.stages))
    if limit is None:
        return f"this machine has too little memory for all settings: {least.settings}: {least.refusal}"
    return (
        f"resources.memory_per_worker: {size(limit, 'down')} is too little for all settings; the least that one "
        f"needs is {size(least.memory, 'up')} a worker: {least.settings}"
    )
