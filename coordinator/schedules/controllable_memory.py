"""V-Half and V-Min (Qi et al. 2024, Pipeline Parallelism with Controllable Memory, arXiv:2405.15362): two stages a
worker in a V, with about a half and a third of the memory of 1F1B.

[Note: blocks] Each micro-batch passes through the V at the same pace: the block below says when worker w performs its
four actions on micro-batch 0; those on micro-batch j come 6 j later, so that a worker with two F, two I and two W is
always busy. The pace of the block, and so how long an activation is kept, decides the memory. The block gives the order
of actions; each runs as early as it can. A W fills every gap.
"""

from __future__ import annotations

import numpy as np

from coordinator.program.table import ActionTable, Numbers
from coordinator.schedules.greedy import WAIT, Rule, WorkerStates, perform
from coordinator.schedules.v_shape import fold, slots_of
from stages.actions import Kind

_PERIOD = 6
_NEVER = np.iinfo(np.int64).max


def v_half(n_stages: int, n_micro_batches: int, n_workers: int) -> ActionTable:
    """A schedule that keeps at most (p + 2) // 2 micro-batches on each worker.

    The laws are for p workers with two stages each, F = I = W and m ≥ p. Time is in forward passes of a stage: a step
    takes 6 m and a worker idles 3 p − 7 (p even, at least 4), 3 p − 4 (p odd, at least 3), 1 (p = 2) or 0 (p = 1). 1F1B
    with the same layers idles 4 (p − 1), or 6 (p − 1) as papers count, with each B as one action. A micro-batch counts
    as two, once for each stage, in `show`.

    A worker takes what can run, by the order of the blocks ([Note: blocks]). On the way down it keeps no more
    micro-batches than the blocks would.
    """
    p, w = n_workers, np.arange(n_workers)
    gap = 0 if p % 2 else 3  # without it, two actions of a worker would fall together
    blocks = np.stack([2 * w, 3 * p - w - 2, 3 * p + gap + 2 * w - 1, 6 * p + gap - w - 2])
    rule = _by_blocks(blocks, n_micro_batches, 2 * ((p + 2) // 2), in_order=False)
    return _perform("v-half", n_stages, n_micro_batches, p, rule)


def v_min(n_stages: int, n_micro_batches: int, n_workers: int) -> ActionTable:
    """A schedule that keeps at most (p + 4) // 3 micro-batches on each worker.

    The laws are for p ≥ 2 workers with two stages each, F = I = W and any m ≥ 2. In forward passes of a stage, a step
    takes 6 m, and a worker idles 4 p − 5, or 4 p − 3 if p is a multiple of 3. A micro-batch counts as two in `show`.

    A worker takes F and I in the order of the blocks ([Note: blocks]), and a W if it has to wait.
    """
    p, w = n_workers, np.arange(n_workers)
    gap = 0 if p % 3 else 2
    blocks = np.stack([w, 2 * p - w - 1, 2 * p + gap + w, 4 * p + gap - w - 1])
    rule = _by_blocks(blocks, n_micro_batches, 2 * ((p + 4) // 3), in_order=True)
    return _perform("v-min", n_stages, n_micro_batches, p, rule)


def _by_blocks(blocks: Numbers, m: int, most: int, *, in_order: bool) -> Rule:
    """Return the rule of a block, whose rows are F down, F up, I up, I down: of the actions that can run, a worker
    takes the first; if `in_order`, it takes the first of all, as soon as it can run. It keeps at most `most`."""
    most_down = np.maximum(1, -(-(blocks[3] - blocks[0]) // _PERIOD))

    def rule(state: WorkerStates) -> Numbers:
        done = np.concatenate([state.forwards, state.backwards[::-1]])
        can = np.concatenate([state.forward, state.backward[::-1]])
        kept = state.in_flight + state.owed
        full = kept >= most
        if in_order:
            left = done < m
        else:
            can[0] &= state.forwards[0] - state.backwards[0] < most_down
            can[0] &= kept - (state.forwards[1] - state.backwards[1]) < np.maximum(most - 1, 1)
            can[:2] &= ~full | (state.owed > 0)
            left = can
        due = np.where(left, blocks + _PERIOD * done, _NEVER)
        first = due.argmin(axis=0)
        runs = np.take_along_axis(can & left, first[None], axis=0)[0] & ~(full & (first < 2))
        owing = np.where(state.owed > 0, state.weight, WAIT)
        return np.where(runs, np.array([0, 1, 3, 2])[first], owing)

    return rule


def _perform(name: str, n_stages: int, m: int, p: int, rule: Rule) -> ActionTable:
    queues = [[slots_of(w, p)[way] * m + np.arange(m) for w in range(p)] for way in (0, 1)]
    return fold(perform(name, 2 * p, m, queues, queues, Kind.BACKWARD_INPUT, rule), n_stages)
