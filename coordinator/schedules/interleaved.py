"""Interleaved 1F1B (Narayanan et al. 2021, arXiv:2104.04473, §2.2): several stages a worker, a smaller bubble."""

from __future__ import annotations

from coordinator.program.table import ActionTable
from coordinator.schedules.one_f_one_b import warm_up_then_alternate


def interleaved(n_stages: int, n_micro_batches: int, n_workers: int) -> ActionTable:
    """A schedule with stage s on worker s mod p. It idles (p − 1) / (v m + p − 1) with v stages on each worker and m ≥
    p.

    In the paper m must be a multiple of p; here it need not be, see [Note: even rounds] in `greedy`.
    """
    return warm_up_then_alternate("interleaved-1f1b", n_stages, n_micro_batches, n_workers)
