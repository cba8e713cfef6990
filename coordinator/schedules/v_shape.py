"""Schedules whose stages lie in a V: worker w of p holds stages w and 2 p − 1 − w, so that worker 0 holds the input and
the loss, and worker p − 1 sends itself its output.

Such a schedule is written for 2 p slots and then folded to any number of stages, see [Note: folding].

[Note: folding] With 2 p stages, a slot is a stage. With fewer, the slots next to the turn of the V stay empty, and the
deepest workers hold one stage. With more, a slot holds several neighbouring stages, which a worker performs one right
after the other. No order can be broken: an action needs only actions on its own micro-batch of its own stage and of its
neighbours.
"""

from __future__ import annotations

import numpy as np

from coordinator.program.table import ActionTable, B, F, Numbers, code, kinds_of, stages_of


def slots_of(worker: int, n_workers: int) -> tuple[int, int]:
    """Return the two slots of a worker: on the way down and on the way up."""
    return worker, 2 * n_workers - 1 - worker


def fold(slots: ActionTable, n_stages: int) -> ActionTable:
    """Return a program of 2 p slots as one of `n_stages` stages, at least p; see [Note: folding]."""
    n_slots, m = slots.n_stages, slots.n_micro_batches
    if n_stages == n_slots:
        return slots
    first = _first_stages(n_slots, n_stages)
    size = np.diff(first)
    lanes = tuple(_folded(lane, first, size, m) for lane in slots.lanes)
    single = (size[stages_of(slots.pairs, m)] == 1) & (size[_partners(slots)] == 1)
    return ActionTable(slots.name, n_stages, m, lanes, _folded(slots.pairs[single], first, size, m))


def _first_stages(n_slots: int, n_stages: int) -> Numbers:
    """Return the first stage of each slot, and at the end the number of stages."""
    if n_stages >= n_slots:
        return np.arange(n_slots + 1) * n_stages // n_slots
    down = n_slots // 2
    up = n_stages - down  # slots on the way up that hold a stage: the last ones
    size = np.concatenate([np.ones(down), np.zeros(down - up), np.ones(up)]).astype(np.int64)
    return np.concatenate([[0], size.cumsum()])


def _folded(lane: Numbers, first: Numbers, size: Numbers, m: int) -> Numbers:
    slot, kind = stages_of(lane, m), kinds_of(lane, m)
    times = size[slot]
    slot, kind, micro_batch = (np.repeat(part, times) for part in (slot, kind, lane % m))
    step = np.arange(len(slot)) - np.repeat(times.cumsum() - times, times)
    stage = np.where(kind == F, first[slot] + step, first[slot + 1] - 1 - step)
    return code(stage, kind, micro_batch, m)


def _partners(of: ActionTable) -> Numbers:
    """Return the slots of the backwards with which the pairs' forwards overlap."""
    m = of.n_micro_batches
    slots = np.empty(len(of.pairs), dtype=np.int64)
    for lane in of.lanes:
        at = np.flatnonzero(np.isin(lane, of.pairs))
        assert (kinds_of(lane[at + 1], m) == B).all(), "a B stands right after the forward that it overlaps"
        slots[np.searchsorted(of.pairs, lane[at])] = stages_of(lane[at + 1], m)
    return slots
