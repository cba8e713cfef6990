"""ZB-H1 (Qi et al. 2023, Zero Bubble Pipeline Parallelism, arXiv:2401.10241, §2.1)."""

from __future__ import annotations

from coordinator.schedules.greedy import WorkerState, even_rounds, perform, queue_up, round_robin
from coordinator.schedules.one_f_one_b import in_flight_limits
from stages.actions import Action, Kind, Program


def zero_bubble_h1(n_stages: int, n_micro_batches: int, n_workers: int) -> Program:
    """1F1B that sends input gradients on at once and puts weight gradients where a worker would wait.

    With F = I = W and m ≥ p a step takes 3 m + p − 1, so workers idle p − 1 instead of 1F1B's 3 (p − 1): a third. Stage
    s keeps min(m, p − s) micro-batches from F to I, as 1F1B does; and each worker puts off only as many W as leave
    it, from F to W, with what 1F1B's first worker keeps: min(m, p).
    """
    limits = in_flight_limits(n_stages, n_micro_batches, n_workers)
    most = max(limits)

    def rule(worker: int, state: WorkerState, forward: Action | None, backward: Action | None) -> Action | None:
        if len(state.owed) > most - limits[worker]:
            return state.owed[0]
        if forward is not None and state.in_flight < limits[worker]:
            return forward
        if backward is not None:
            return backward
        return state.owed[0] if state.owed else None

    rounds = even_rounds(n_micro_batches, n_workers)
    queues = queue_up(round_robin(n_stages, n_workers), rounds, Kind.BACKWARD_INPUT)
    return perform("zb-h1", n_stages, n_micro_batches, queues, rule)
