"""The memory of a worker, for its reports."""

from __future__ import annotations

from collections.abc import Mapping

from stages.orders import WorkerMemory
from stages.process_memory import peak_resident_bytes, status_bytes
from stages.stage import Stage


def worker_memory(stages: Mapping[int, Stage], resident_before: int) -> WorkerMemory:
    """Return the memory of a worker with these stages, whose process had `resident_before` bytes before the job."""
    held = {}
    for s, stage in stages.items():
        copies, gradients = stage.uses.nbytes
        own = stage.parameters
        held[s] = (own.values.nbytes + copies, own.gradients.nbytes + gradients, stage.optimizer.nbytes)
    peak = peak_resident_bytes()
    return WorkerMemory(
        held=held,
        peak_resident=peak,
        peak_job=max(0, peak - resident_before),
        job=max(0, status_bytes("VmRSS") - resident_before),
    )
