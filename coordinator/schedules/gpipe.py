"""GPipe (Huang et al. 2019, arXiv:1811.06965): everything forward, then everything back."""

from __future__ import annotations

from coordinator.schedules.greedy import WorkerState, grouped_orders, perform, round_robin
from stages.actions import Action, Kind, Program


def gpipe(n_stages: int, n_micro_batches: int, n_workers: int) -> Program:
    """Keeps all micro-batches alive; idles (p − 1) / (m + p − 1). Backwards are first in, first out."""

    def rule(worker: int, state: WorkerState, forward: Action | None, backward: Action | None) -> Action | None:
        return backward if state.forwards_done else forward

    placement = round_robin(n_stages, n_workers)
    orders = grouped_orders(placement, n_micro_batches, n_workers, Kind.BACKWARD)
    return perform("gpipe", n_stages, n_micro_batches, orders, rule)
