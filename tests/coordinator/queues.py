"""Waiting jobs, nodes, and the reasons that `list` shows."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.queue.job_queue import Capacity, Needs, Waiting, choose

MIB, GIB = 2**20, 2**30


def a_job(order: int, cpus: int = 1, workers: int = 1, memory: int = 0, priority: int = 0) -> Waiting:
    needs = Needs(workers=workers, cpus=cpus, memory=memory)
    return Waiting(job=f"j{order}", priority=priority, order=order, needs=needs)


def needs_of(cpus: int, memory: int = 0, workers: int = 1) -> Needs:
    return Needs(workers=workers, cpus=cpus, memory=memory)


def a_node(cpus: int, memory: int = GIB) -> Capacity:
    return Capacity(cpus=cpus, memory=memory)


def reasons_of(jobs: Sequence[Waiting], active: Sequence[Needs], nodes: Sequence[Capacity]) -> list[str]:
    """Return what `list` shows after the chosen jobs have left the queue."""
    choice = choose(jobs, active, nodes)
    left = [waiting for waiting in jobs if waiting.job not in choice.starts]
    return [choice.explain(waiting, position) for position, waiting in enumerate(left, 1)]
