"""ZB-H1 (Qi et al. 2023, Zero Bubble Pipeline Parallelism, arXiv:2401.10241)."""

from __future__ import annotations

from coordinator.schedules.greedy import WorkerState, grouped_orders, perform, round_robin
from stages.actions import Action, Kind, Program


def zero_bubble_h1(n_stages: int, n_micro_batches: int, n_workers: int) -> Program:
    """Input gradients at once, weight gradients where the worker would wait: a third of 1F1B's bubble (F = I = W).

    No worker keeps more micro-batches than 1F1B's first one does.
    """
    placement = round_robin(n_stages, n_workers)
    most_kept = [n_workers * len(own) for own in placement]

    def rule(worker: int, state: WorkerState, forward: Action | None, backward: Action | None) -> Action | None:
        owed_at_most = worker * len(placement[worker])  # later workers turn round earlier and put off more
        if len(state.owed) > owed_at_most:
            return state.owed[0]
        if state.in_flight < most_kept[worker] - owed_at_most and not state.forwards_done:
            return forward
        if backward is not None:
            return backward
        return state.owed[0] if state.owed and state.forwards_done else None

    orders = grouped_orders(placement, n_micro_batches, n_workers, Kind.BACKWARD_INPUT)
    return perform("zb-h1", n_stages, n_micro_batches, orders, rule)
