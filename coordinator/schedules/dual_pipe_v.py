"""DualPipeV (DeepSeek-AI 2025, github.com/deepseek-ai/DualPipe): two stages a worker in a V; in its main phase each
forward runs beside the backward of another micro-batch."""

from __future__ import annotations

import numpy as np

from coordinator.program.table import ActionTable, B, F, I, Numbers, W, lane_in_order
from coordinator.schedules.v_shape import fold, slots_of
from stages.errors import InvalidSchedule

_F0, _F1, _B1, _B0, _I1, _I0, _W1, _W0 = range(8)
_KINDS = (F, F, B, B, I, I, W, W)


def dual_pipe_v(n_stages: int, n_micro_batches: int, n_workers: int) -> ActionTable:
    """A schedule that keeps at most 2 p + 1 stages' micro-batches on each of p workers, and idles p − 1 in a step of
    6 m + p − 1, with two stages a worker, F = I = W and m ≥ 2 p. Raises InvalidSchedule for fewer micro-batches.

    Workers here perform the forward of a pair and send its output, and then the backward. If both halves of a pair
    begin and end together, as its authors count, a worker idles (p − 1) (F&B + B − 3 W), which is 2 (p − 1) if a pair
    takes as long as its halves. Other numbers of stages: see [Note: folding] in `v_shape`.
    """
    m, p = n_micro_batches, n_workers
    if m < 2 * p:
        raise InvalidSchedule(
            f"dualpipev: {m} micro-batches are too few for {p} workers, it needs at least two for each worker: {2 * p}"
        )
    found = [_lane(worker, p, m) for worker in range(p)]
    pairs = np.sort(np.concatenate([own for _, own in found]))
    return fold(ActionTable("dualpipev", 2 * p, m, tuple(lane for lane, _ in found), pairs), n_stages)


def _lane(worker: int, p: int, m: int) -> tuple[Numbers, Numbers]:
    """Return a worker's lane, and its forwards that overlap with the backward after them.

    0 is the slot on the way down, 1 that on the way up. The eight phases are those of the authors.
    """
    down, up = slots_of(worker, p)
    left = p - 1 - worker
    turning = worker == p - 1
    main = m - 2 * p + worker + 1
    # the last B's of a worker give way to I's, whose W's fill the end
    whole = (worker + 1) // 2 * 2 if worker % 2 else worker // 2 * 2 + 1
    ends = [_B1, _B0] * (worker + 1)
    ends = ends[:whole] + [_I1 if action == _B1 else _I0 for action in ends[whole:]]
    owed = [_W1 if action == _I1 else _W0 for action in ends[whole:]] + [_W0] * left
    before = np.concatenate(
        [
            np.full(2 * left, _F0),
            np.tile([_F0, _F1], worker + 1),
            np.tile([_I1, _W1, _F1], left),
        ]
    )
    paired = np.concatenate([np.tile([_F0, _B1, _F1, _B0], main), np.tile([_B1, _F1, _B0], left)])
    closing = [action for k in range(left) for action in (owed[k], _I0)]
    order = np.concatenate([before, paired, ends, closing, owed[left:]]).astype(np.int64)
    lane = lane_in_order((down, up, up, down, up, down, up, down), _KINDS, order, m)
    overlapping = lane[len(before) : len(before) + len(paired)][paired <= _F1]
    # the first pair of the worker at the turn is no pair: its B waits for no other worker
    return lane, overlapping[1:] if turning else overlapping
