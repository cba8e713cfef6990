"""ZB-H1 and ZB-H2 (Qi et al. 2023, Zero Bubble Pipeline Parallelism, arXiv:2401.10241, §2.1 and §2.2)."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.schedules.greedy import WorkerState, even_rounds, perform, queue_up, round_robin
from coordinator.schedules.one_f_one_b import one_f_one_b
from stages.actions import Action, Kind, Lane, Program


def zero_bubble_h1(n_stages: int, n_micro_batches: int, n_workers: int) -> Program:
    """A schedule like 1F1B that sends input gradients at once and computes weight gradients when a worker would wait.

    With F = I = W and m ≥ p a step takes 3 v m + p − 1, so workers idle p − 1 instead of 1F1B's 3 (p − 1): a third.
    Between F and I each worker keeps at most as much as in 1F1B. Between F and W it keeps at most as much as the worker
    that keeps most in 1F1B (with one stage a worker, min(m, p)); before it would keep more, it does a W.
    """
    limits = [_most_in_flight(lane) for lane in one_f_one_b(n_stages, n_micro_batches, n_workers).lanes]
    return _zero_bubble("zb-h1", n_stages, n_micro_batches, limits)


def zero_bubble_h2(n_stages: int, n_micro_batches: int, n_workers: int) -> Program:
    """ZB-H1 with more forward passes first: worker w of p, with one stage, keeps at most 2 (p − w) − 1 micro-batches.

    With F = I = W and m ≥ 2p − 1 no worker idles between its first and its last action of a step. Each worker begins
    and ends later than the one before it. If updates need no decision of all workers (no clipping), the next step
    begins at once, and no worker ever waits.
    """
    lanes = one_f_one_b(n_stages, n_micro_batches, n_workers).lanes
    return _zero_bubble("zb-h2", n_stages, n_micro_batches, [2 * _most_in_flight(lane) - 1 for lane in lanes])


def _zero_bubble(name: str, n_stages: int, n_micro_batches: int, limits: Sequence[int]) -> Program:
    """Worker w keeps at most `limits[w]` micro-batches from F to I; no worker keeps more than `max(limits)` to W."""
    n_workers, most = len(limits), max(limits)

    def rule(worker: int, state: WorkerState, forward: Action | None, backward: Action | None) -> Action | None:
        if forward is not None and state.in_flight < limits[worker]:
            return forward if state.in_flight + len(state.owed) < most else state.owed[0]
        if backward is not None:
            return backward
        return state.owed[0] if state.owed else None

    rounds = even_rounds(n_micro_batches, n_workers)
    queues = queue_up(round_robin(n_stages, n_workers), rounds, Kind.BACKWARD_INPUT)
    return perform(name, n_stages, n_micro_batches, queues, rule)


def _most_in_flight(lane: Lane) -> int:
    now = most = 0
    for action in lane:
        now += 1 if action.kind is Kind.FORWARD else -1
        most = max(most, now)
    return most
