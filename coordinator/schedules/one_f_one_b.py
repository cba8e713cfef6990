"""1F1B with a flush (PipeDream-Flush, Narayanan et al. 2020, arXiv:2006.09503): one forward, one backward."""

from __future__ import annotations

import numpy as np

from coordinator.program.table import ActionTable, Numbers
from coordinator.schedules.greedy import WAIT, WorkerStates, even_rounds, perform, queue_up, round_robin
from stages.actions import Kind


def one_f_one_b(n_stages: int, n_micro_batches: int, n_workers: int) -> ActionTable:
    """A schedule that idles as much as GPipe, with at most min(m, p − s) micro-batches alive on stage s.

    With fewer workers than stages it is the interleaved schedule (see `interleaved`).
    """
    return warm_up_then_alternate("1f1b", n_stages, n_micro_batches, n_workers)


def warm_up_then_alternate(name: str, n_stages: int, n_micro_batches: int, n_workers: int) -> ActionTable:
    """Run forwards until the limit in flight is reached, then one backward for each forward."""
    limits = np.array(in_flight_limits(n_stages, n_micro_batches, n_workers))

    def rule(state: WorkerStates) -> Numbers:
        backward = np.where(state.backward[0], 1, WAIT)
        return np.where(state.forward[0] & (state.in_flight < limits), 0, backward)

    rounds = even_rounds(n_micro_batches, n_workers)
    forwards, backwards = queue_up(round_robin(n_stages, n_workers), rounds, n_micro_batches)
    return perform(name, n_stages, n_micro_batches, [forwards], [backwards], Kind.BACKWARD, rule)


def in_flight_limits(n_stages: int, n_micro_batches: int, n_workers: int) -> list[int]:
    """Return the most forwards that each worker has in flight, counted once a stage.

    With one stage a worker, that is the number of workers after it, and one. With v stages, the worker d places before
    the last stage's worker takes a round of r micro-batches through all but its last stage, and then needs as many as
    travel to the last stage and back: (v − 1) r + 2 d + 1 (Narayanan et al. 2021, arXiv:2104.04473, §2.2; there r = p).
    """
    placement = round_robin(n_stages, n_workers)
    if n_stages == n_workers:
        return [n_workers - worker for worker in range(n_workers)]
    largest_round = max(map(len, even_rounds(n_micro_batches, n_workers)))
    last = (n_stages - 1) % n_workers
    return [
        (len(own) - 1) * largest_round + 2 * ((last - worker) % n_workers) + 1 for worker, own in enumerate(placement)
    ]
