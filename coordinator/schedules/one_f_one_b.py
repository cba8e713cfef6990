"""1F1B (Harlap et al. 2018, PipeDream, arXiv:1806.03377; with a flush, Narayanan et al. 2021, arXiv:2104.04473)."""

from __future__ import annotations

from coordinator.schedules.greedy import WorkerState, grouped_orders, perform, round_robin
from stages.actions import Action, Kind, Program


def one_f_one_b(n_stages: int, n_micro_batches: int, n_workers: int) -> Program:
    """GPipe's idle share with at most p − s micro-batches alive on stage s: one goes back for each that goes forward.

    With fewer workers than stages it is interleaved (see `interleaved`).
    """
    return warm_up_then_alternate("1f1b", n_stages, n_micro_batches, n_workers)


def warm_up_then_alternate(name: str, n_stages: int, n_micro_batches: int, n_workers: int) -> Program:
    """Forward until the pipeline below is full, then one back, one forward.

    A worker with several stages takes `n_workers` micro-batches through each in turn. Worker w of p, with v stages,
    has at most 2 (p − w − 1) + (v − 1) p + 1 forwards in flight where v > 1, else p − w.
    """
    placement = round_robin(n_stages, n_workers)
    last = (n_stages - 1) % n_workers  # the worker of the last stage turns round first

    def most_in_flight(worker: int) -> int:
        v = len(placement[worker])
        if n_stages == n_workers:
            return n_workers - worker
        return 2 * ((last - worker) % n_workers) + (v - 1) * n_workers + 1

    def rule(worker: int, state: WorkerState, forward: Action | None, backward: Action | None) -> Action | None:
        if backward is not None and (state.in_flight >= most_in_flight(worker) or state.forwards_done):
            return backward
        return forward if state.in_flight < most_in_flight(worker) else None

    orders = grouped_orders(placement, n_micro_batches, n_workers, Kind.BACKWARD)
    return perform(name, n_stages, n_micro_batches, orders, rule)
