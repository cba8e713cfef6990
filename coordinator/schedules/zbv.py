"""ZB-V (Qi et al. 2023, arXiv:2401.10241, §6): two stages a worker in a V, with the memory of 1F1B."""

from __future__ import annotations

import numpy as np

from coordinator.program.table import ActionTable, F, I, Numbers, W, lane_in_order
from coordinator.schedules.v_shape import fold, slots_of

_F0, _F1, _I1, _W1, _I0, _W0 = range(6)
_KINDS = (F, F, I, W, I, W)


def zbv(n_stages: int, n_micro_batches: int, n_workers: int) -> ActionTable:
    """A schedule that idles p − 1 in a step of 6 m + p − 1, and keeps at most 2 p stages' micro-batches on each worker,
    as much as p micro-batches of 1F1B: for p workers with two stages each, F = I = W, and m ≥ 2 p − 1.

    No worker idles between its first and its last action. With fewer micro-batches it is the schedule of 2 p − 1 of
    them without the actions on the missing ones. Other numbers of stages: see [Note: folding] in `v_shape`.
    """
    m, p = n_micro_batches, n_workers
    lanes = [_lane(worker, p, max(m, 2 * p - 1)) for worker in range(p)]
    return fold(ActionTable("zbv", 2 * p, m, tuple(cut(lane, max(m, 2 * p - 1), m) for lane in lanes)), n_stages)


def cut(lane: Numbers, m: int, fewer: int) -> Numbers:
    """Return a lane for m micro-batches without the actions on those from `fewer` on."""
    kept = lane[lane % m < fewer]
    return np.asarray(kept // m * fewer + kept % m)


def _lane(worker: int, p: int, m: int) -> Numbers:
    """Return the lane of a worker for m ≥ 2 p − 1 micro-batches. 0 is the slot on the way down, 1 the other."""
    down, up = slots_of(worker, p)
    left = p - worker
    parts = [
        np.full(2 * left - 1, _F0),  # until the first micro-batch comes back up
        np.tile([_F1, _F0], worker),
        np.tile([_F1, _I1, _W1], left),  # until the first gradient comes down
    ]
    begun = 2 * left - 1 + worker  # micro-batches that went down
    parts.append(np.tile([_F0, _I0, _W0, _F1, _I1, _W1], m - begun))
    parts.append(np.tile([_I0, _W0, _F1, _I1, _W1], begun - p))  # as many went down, but not yet up
    parts.append(np.tile([_I0, _I1], worker))
    parts.append(np.tile([_I0, _W0], left))
    parts.append(np.full(worker, _W1))
    parts.append(np.full(worker, _W0))
    order = np.concatenate(parts)
    return lane_in_order((down, up, up, up, down, down), _KINDS, order, m)
