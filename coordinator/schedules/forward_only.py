"""Evaluation: every micro-batch goes forward, nothing comes back."""

from __future__ import annotations

from coordinator.schedules.greedy import WorkerState, even_rounds, perform, queue_up, round_robin
from stages.actions import Action, Kind, Program


def forward_only(n_stages: int, n_micro_batches: int, n_workers: int) -> Program:
    """Only F; stage s on worker s mod n_workers. `replay.check(program, backward=False)` accepts it."""

    def rule(worker: int, state: WorkerState, forward: Action | None, backward: Action | None) -> Action | None:
        return forward

    queues = queue_up(round_robin(n_stages, n_workers), even_rounds(n_micro_batches, n_workers), Kind.FORWARD)
    return perform("forward-only", n_stages, n_micro_batches, [(forwards, []) for forwards, _ in queues], rule)
