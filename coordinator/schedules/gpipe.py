"""GPipe (Huang et al. 2019, arXiv:1811.06965): all forwards, then all backwards."""

from __future__ import annotations

from coordinator.schedules.greedy import WorkerState, perform, queue_up, round_robin
from stages.actions import Action, Kind, Program


def gpipe(n_stages: int, n_micro_batches: int, n_workers: int) -> Program:
    """A schedule that keeps all m micro-batches alive; it idles (p − 1) / (v m + p − 1) with v stages on each of p
    workers and m ≥ p.

    Backwards run in the order of the forwards, so that gradients are added in the same order as in all schedules. A
    worker with several stages takes all micro-batches through one stage before the next.
    """

    def rule(worker: int, state: WorkerState, forward: Action | None, backward: Action | None) -> Action | None:
        return backward if state.forwards_done else forward

    queues = queue_up(round_robin(n_stages, n_workers), [range(n_micro_batches)], Kind.BACKWARD)
    return perform("gpipe", n_stages, n_micro_batches, queues, rule)
