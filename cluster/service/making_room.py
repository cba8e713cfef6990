"""Lets active jobs make room for a waiting job that may displace them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence

from cluster.service.changes import logged
from cluster.service.job_table import JobTable
from cluster.service.noting import AGAIN_S, Noting
from cluster.service.refusals import StoreTrouble
from coordinator.queue.happenings import Displaced
from coordinator.queue.job_queue import Capacity, Waiting
from coordinator.queue.preemption import Active, displacement


async def make_room(
    jobs: JobTable,
    noting: Noting,
    queue: Iterable[Waiting],
    memory_per_cpu: int,
    nodes: Sequence[Capacity],
    look_again: Callable[[], object],
) -> None:
    """Ask the jobs to leave that make room for the first one of the queue. If that cannot be noted now, `look_again` is
    called later."""
    active = [
        Active(
            job=entry.record.id,
            priority=entry.record.priority,
            order=entry.record.order,
            needs=entry.record.needs.resolved(memory_per_cpu),
            leaving=entry.leaving,
        )
        for entry in jobs.active_entries()
    ]
    found = displacement(queue, active, nodes)
    if found is None:
        return
    head = jobs.entries[found.room_for].record
    why, details = f"makes room for job {head.id} of priority {head.priority}", {"room_for": head.id}
    for job in found.jobs:
        with logged(f"job {job} could not make room"):
            try:
                happening = Displaced(time.time(), head.id)
                await jobs.unbroken(noting.apply(jobs.entries[job], happening, "preempted", why, details))
            except StoreTrouble:
                asyncio.get_running_loop().call_later(AGAIN_S, look_again)
                return
