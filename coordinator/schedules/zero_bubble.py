"""ZB-H1 and ZB-H2 (Qi et al. 2023, Zero Bubble Pipeline Parallelism, arXiv:2401.10241, §2.1 and §2.2)."""

from __future__ import annotations

import numpy as np

from coordinator.program.table import UNIT_TIMES, ActionTable, F, Numbers, Times, kinds_of
from coordinator.schedules.greedy import WAIT, WorkerStates, even_rounds, perform, queue_up, round_robin
from coordinator.schedules.one_f_one_b import one_f_one_b
from stages.actions import Kind


def zero_bubble_h1(n_stages: int, n_micro_batches: int, n_workers: int) -> ActionTable:
    """A schedule like 1F1B that sends input gradients at once and computes weight gradients when a worker would wait.

    With F = I = W and m ≥ p a step takes 3 v m + p − 1, so workers idle p − 1. 1F1B idles 2 (p − 1), or 3 (p − 1) as
    papers count, with each B as one action.
    Between F and I each worker keeps at most as much as in 1F1B. Between F and W it keeps at most as much as the worker
    that keeps most in 1F1B (with one stage a worker, min(m, p)); before it would keep more, it does a W.
    """
    limits = most_in_flight(n_stages, n_micro_batches, n_workers)
    return within_limits("zb-h1", n_stages, n_micro_batches, limits, limits.max())


def zero_bubble_h2(n_stages: int, n_micro_batches: int, n_workers: int) -> ActionTable:
    """ZB-H1 with more forward passes first: worker w of p, with one stage, keeps at most 2 (p − w) − 1 micro-batches.

    With F = I = W and m ≥ 2p − 1 no worker idles between its first and its last action of a step. Each worker begins
    and ends later than the one before it. If updates need no decision of all workers (no clipping), the next step
    begins at once, and no worker ever waits.
    """
    limits = 2 * most_in_flight(n_stages, n_micro_batches, n_workers) - 1
    return within_limits("zb-h2", n_stages, n_micro_batches, limits, limits.max())


def within_limits(
    name: str, n_stages: int, n_micro_batches: int, limits: Numbers, most: int, times: Times = UNIT_TIMES
) -> ActionTable:
    """Return the program in which worker w keeps at most `limits[w]` micro-batches from F to I, and `most` to W. It
    computes weight gradients when it would wait. `times` are those of F, I, W and B, for which the program is made."""
    n_workers = len(limits)

    def rule(state: WorkerStates) -> Numbers:
        owing = np.where(state.owed > 0, state.weight, WAIT)
        forward = np.where(state.in_flight + state.owed < most, 0, owing)
        backward = np.where(state.backward[0], 1, owing)
        return np.where(state.forward[0] & (state.in_flight < limits), forward, backward)

    rounds = even_rounds(n_micro_batches, n_workers)
    forwards, backwards = queue_up(round_robin(n_stages, n_workers), rounds, n_micro_batches)
    return perform(name, n_stages, n_micro_batches, [forwards], [backwards], Kind.BACKWARD_INPUT, rule, times)


def most_in_flight(n_stages: int, m: int, n_workers: int) -> Numbers:
    """Return the most micro-batches that each worker keeps from F to B in 1F1B, counted once a stage."""
    if n_stages == n_workers:
        return np.minimum(m, np.arange(n_workers, 0, -1))
    kinds = (kinds_of(lane, m) for lane in one_f_one_b(n_stages, m, n_workers).lanes)
    return np.array([np.where(own == F, 1, -1).cumsum().max() for own in kinds])
