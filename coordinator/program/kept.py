"""The micro-batches that stages keep in a step, counted from a program as numbers: the same peaks as `replay` gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coordinator.program.table import ActionTable, B, F, I, Numbers, W, kinds_of, stages_of


@dataclass(frozen=True, slots=True)
class KeptPeaks:
    """Peaks in micro-batches: `alive[s]` between F and the weight gradient's product of stage s, `for_input[s]` between
    F and its input gradient; `together[w]` is `alive` of all stages of worker w together."""

    alive: tuple[int, ...]
    for_input: tuple[int, ...]
    together: tuple[int, ...]


def kept(table: ActionTable, weight_grad_group: int = 1) -> KeptPeaks:
    """Return the peaks of a program that keeps the laws. With `weight_grad_group` g, micro-batch j is kept until the
    product of its group j // g; groups are done in ascending order (see stages.stage, [Note: ascending weight
    gradients])."""
    alive, for_input = [0] * table.n_stages, [0] * table.n_stages
    together = []
    for lane in table.lanes:
        stage, kind, j = (part(lane, table.n_micro_batches) for part in (stages_of, kinds_of, np.mod))
        change = np.zeros(len(lane), dtype=np.int64)
        for s in np.unique(stage).tolist():
            own = stage == s
            began = np.flatnonzero(own & (kind == F))
            passed = np.flatnonzero(own & ((kind == I) | (kind == B)))
            freed = np.flatnonzero(own & ((kind == W) | (kind == B)))
            if len(freed):
                freed = _products(freed, np.asarray(j)[freed], weight_grad_group)
                alive[s] = _peak(began, freed, len(lane), change)
                for_input[s] = _peak(began, passed, len(lane))
        together.append(max(0, int(change.cumsum().max())))
    return KeptPeaks(tuple(alive), tuple(for_input), tuple(together))


def products_made(lane: Numbers, m: int, group: int) -> Numbers:
    """Return how many micro-batches' weight gradients each action of a lane computes: at a W that completes its group,
    those of the group; 0 at all others."""
    stage, kind = stages_of(lane, m), kinds_of(lane, m)
    made = np.zeros(len(lane), dtype=np.int64)
    for s in np.unique(stage).tolist():
        own = np.flatnonzero((stage == s) & (kind == W))
        if len(own):
            made += np.bincount(_products(own, lane[own] % m, group), minlength=len(lane))
    return made


def _products(places: Numbers, j: Numbers, group: int) -> Numbers:
    """Return the places at which micro-batches 0, 1, … are freed, if micro-batch `j[i]` does its W at `places[i]`."""
    done = np.empty(len(j), dtype=np.int64)
    done[j] = places
    groups = np.maximum.accumulate(np.maximum.reduceat(done, np.arange(0, len(done), group)))
    return np.asarray(np.repeat(groups, group)[: len(done)])


def _peak(began: Numbers, ended: Numbers, length: int, add_to: Numbers | None = None) -> int:
    change = np.bincount(began, minlength=length) - np.bincount(ended, minlength=length)
    if add_to is not None:
        add_to += change
    return int(change.cumsum().max())
