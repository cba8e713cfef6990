"""A program as numbers: one NumPy array of codes for each lane. Large programs are built, timed and measured in this
form, because a Python object for each action takes too long.

The code of an action is (stage · 4 + kind) · m + micro-batch; kinds count F, I, W, B.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stages.actions import Action, Kind, Lane, Program

Numbers = NDArray[np.int64]
Times = NDArray[np.float64]

KINDS = (Kind.FORWARD, Kind.BACKWARD_INPUT, Kind.BACKWARD_WEIGHT, Kind.BACKWARD)
F, I, W, B = range(4)  # noqa: E741
UNIT_TIMES = np.array([1.0, 1.0, 1.0, 2.0])
"""The times of F, I, W and B, if F = I = W."""


def _none() -> Numbers:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class ActionTable:
    """A program as numbers: `lanes[w]` has the codes of worker w's actions, int64, in order; `pairs` are the codes of
    `Program.pairs`, ascending."""

    name: str
    n_stages: int
    n_micro_batches: int
    lanes: tuple[Numbers, ...]
    pairs: Numbers = field(default_factory=_none)

    @property
    def n_workers(self) -> int:
        """The number of workers: one for each lane."""
        return len(self.lanes)

    @cached_property
    def placement(self) -> tuple[int, ...]:
        """`placement[s]` is the worker that holds stage s, for a program that keeps the laws."""
        held = np.zeros(self.n_stages, dtype=np.int64)
        for worker, lane in enumerate(self.lanes):
            held[stages_of(lane, self.n_micro_batches)] = worker
        return tuple(held.tolist())

    def kinds(self) -> frozenset[Kind]:
        """Return the kinds of actions that the program has."""
        used = np.unique(np.concatenate([np.unique(kinds_of(lane, self.n_micro_batches)) for lane in self.lanes]))
        return frozenset(KINDS[kind] for kind in used)

    def program(self) -> Program:
        """Return the same program with its actions as objects."""
        m = self.n_micro_batches
        lanes = tuple(actions_of(lane, m) for lane in self.lanes)
        return Program(self.name, self.n_stages, m, lanes, frozenset(actions_of(self.pairs, m)))


def table_of(program: Program) -> ActionTable:
    """Return the program as numbers. Its stages and micro-batches must be inside its size."""
    m = program.n_micro_batches
    lanes = tuple(_codes(lane, m) for lane in program.lanes)
    return ActionTable(program.name, program.n_stages, m, lanes, np.sort(_codes(tuple(program.pairs), m)))


def _codes(lane: Lane, m: int) -> Numbers:
    number = {kind: place for place, kind in enumerate(KINDS)}
    return np.array([(a.stage * 4 + number[a.kind]) * m + a.micro_batch for a in lane], dtype=np.int64)


def actions_of(codes: Numbers, m: int) -> Lane:
    """Return the actions of codes, for m micro-batches."""
    parts = zip(stages_of(codes, m).tolist(), kinds_of(codes, m).tolist(), (codes % m).tolist(), strict=True)
    return tuple(Action(stage, KINDS[kind], j) for stage, kind, j in parts)


def stages_of(codes: Numbers, m: int) -> Numbers:
    """Return the stage of each code."""
    return codes // (4 * m)


def kinds_of(codes: Numbers, m: int) -> Numbers:
    """Return the kind of each code, a place in KINDS."""
    return codes // m % 4


def code(stage: Numbers | int, kind: Numbers | int, micro_batch: Numbers | int, m: int) -> Numbers:
    """Return the codes of actions, for m micro-batches."""
    return np.asarray((np.asarray(stage) * 4 + kind) * m + micro_batch, dtype=np.int64)


def apart(table: ActionTable) -> ActionTable:
    """Return the program with each B as its I and its W, which is how workers perform it. It has no pairs."""
    m = table.n_micro_batches
    return ActionTable(table.name, table.n_stages, m, tuple(_apart(lane, m) for lane in table.lanes))


def _apart(lane: Numbers, m: int) -> Numbers:
    whole = kinds_of(lane, m) == B
    halves = np.repeat(lane, whole + 1)
    first = np.cumsum(whole + 1)[whole] - 2
    halves[first] -= (B - I) * m
    halves[first + 1] -= (B - W) * m
    return halves


def repeated(table: ActionTable, steps: int) -> ActionTable:
    """Return the program that performs this one `steps` times, without a pause between two: micro-batch j of step k is
    k · m + j. It has no pairs."""
    m, wide = table.n_micro_batches, steps * table.n_micro_batches
    lanes = tuple(
        np.concatenate([lane // m * wide + step * m + lane % m for step in range(steps)]) for lane in table.lanes
    )
    return ActionTable(table.name, table.n_stages, wide, lanes)


def lane_in_order(stages: Sequence[int], kinds: Sequence[int], order: Numbers, m: int) -> Numbers:
    """Return the lane that performs `order`, whose numbers are places in `stages` and `kinds`. Each stage takes its
    micro-batches in ascending order, in each kind; a B counts as its I and its W."""
    own, kind = np.asarray(stages)[order], np.asarray(kinds)[order]
    micro_batch = np.empty(len(order), dtype=np.int64)
    for stage in set(stages):
        forward = np.flatnonzero((own == stage) & (kind == F))
        micro_batch[forward] = np.arange(len(forward))
        for half in (W, I):  # I last: a B has the number of its I, which is that of its W too
            among = np.flatnonzero((own == stage) & ((kind == half) | (kind == B)))
            mine = kind[among] == half if half == W else np.ones(len(among), dtype=bool)
            micro_batch[among[mine]] = np.arange(len(among))[mine]
    return code(own, kind, micro_batch, m)
