"""GPipe (Huang et al. 2019, arXiv:1811.06965): all forwards, then all backwards; and its form with several stages a
worker, the breadth-first schedule (Lamy-Poirier 2022, arXiv:2211.05953)."""

from __future__ import annotations

import numpy as np

from coordinator.program.table import ActionTable, Numbers
from coordinator.schedules.greedy import WAIT, WorkerStates, perform, queue_up, round_robin
from stages.actions import Kind


def gpipe(n_stages: int, n_micro_batches: int, n_workers: int) -> ActionTable:
    """A schedule that keeps all m micro-batches alive; it idles (p − 1) / (v m + p − 1) with v stages on each of p
    workers and m ≥ p.

    Backwards run in the order of the forwards, so that gradients are added in the same order as in all schedules. A
    worker with several stages takes all micro-batches through one stage before the next.
    """
    return _breadth_first("gpipe", n_stages, n_micro_batches, n_workers)


def looped_bfs(n_stages: int, n_micro_batches: int, n_workers: int) -> ActionTable:
    """GPipe with stage s on worker s mod p, by default two stages a worker: the same laws as `gpipe`. Each worker keeps
    v m micro-batches, counted once a stage.

    torch's ScheduleLoopedBFS takes the micro-batches of a backward pass in descending order. Weight gradients are added
    in ascending order here, so backwards run in ascending order, which takes as long and frees arrays sooner.
    """
    return _breadth_first("looped-bfs", n_stages, n_micro_batches, n_workers)


def _breadth_first(name: str, n_stages: int, m: int, n_workers: int) -> ActionTable:
    forwards, backwards = queue_up(round_robin(n_stages, n_workers), [range(m)], m)
    all_of = np.array([len(own) for own in forwards])

    def rule(state: WorkerStates) -> Numbers:
        backward = np.where(state.backward[0], 1, WAIT)
        return np.where(state.forwards[0] == all_of, backward, np.where(state.forward[0], 0, WAIT))

    return perform(name, n_stages, m, [forwards], [backwards], Kind.BACKWARD, rule)
