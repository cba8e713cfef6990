"""The dry run of a program as numbers: the times of all actions, and the figures that follow from them.

timed = as_workers_do(table)                         # F = I = W = 1; each B is its I and then its W
timed = as_workers_do(table, times, latency=0.5)     # times[s, k]: stage s, kind k of F, I, W, B
timed.bubble, timed.bubble_rate
as_papers_count(table).bubble                        # published figures: a B is one action

`show`, `lab` and the pages take their figures from `as_workers_do`; `plan` and a run do the same with their own times
(coordinator.timing.prediction, [Note: as performed]). `on_the_clock` performs a table as it stands. `replay` does the
same for a Program, and says what is wrong with one that breaks a law; both give the same times.

[Note: two bubbles] The *bubble* is the idle share of all workers' time, from the first action of the step to the last
one. The *bubble rate* of the zero-bubble papers is 1 − computing time / the longest time from a worker's first action
to its last one: it leaves out that workers begin and end one after the other. It is what a worker loses if the next
step begins before all have ended this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import inf
from typing import NamedTuple

import numpy as np

from coordinator.program.kept import products_made
from coordinator.program.replay import Span, check
from coordinator.program.table import (
    UNIT_TIMES,
    ActionTable,
    B,
    F,
    I,
    Numbers,
    Times,
    W,
    actions_of,
    apart,
    kinds_of,
    stages_of,
)
from stages.actions import Kind
from stages.errors import InvalidSchedule

Latency = float | Times


class Waking(NamedTuple):
    """A worker that has waited for an array for longer than `after` sleeps, and begins `takes` after the array has
    come."""

    after: float = inf
    takes: float = 0.0

    def ready(self, free: float, ready: float) -> float:
        """Return when a worker that is free can begin with an array that is ready then."""
        return ready + self.takes if ready - free > self.after else ready


AWAKE = Waking()
"""Of workers that never sleep."""
_WIDE = 24  # workers from which the clock runs for all workers at once


@dataclass(frozen=True, eq=False)
class Timed:
    """A program with its times: `starts[w]` and `ends[w]` are those of worker w's actions, in the unit of the
    durations. `held[w]` is how long each waited for room to send its array; empty if links have any room."""

    table: ActionTable
    starts: tuple[Times, ...]
    ends: tuple[Times, ...]
    held: tuple[Times, ...] = ()

    @cached_property
    def makespan(self) -> float:
        """From the first action's start to the last one's end."""
        return max(float(ends[-1]) for ends in self.ends)

    @cached_property
    def busy(self) -> tuple[float, ...]:
        """Time in which each worker computes."""
        return tuple(float((end - start).sum()) for start, end in zip(self.starts, self.ends, strict=True))

    @cached_property
    def bubbles(self) -> tuple[float, ...]:
        """Idle share of each worker's time."""
        return tuple((self.makespan - busy) / self.makespan if self.makespan else 0.0 for busy in self.busy)

    @cached_property
    def bubble(self) -> float:
        """Idle share of all workers' time; see [Note: two bubbles]."""
        return sum(self.bubbles) / len(self.bubbles)

    @cached_property
    def bubble_rate(self) -> float:
        """The bubble without the staggered begin and end; see [Note: two bubbles]."""
        return 1 - sum(self.busy) / len(self.busy) / self.longest_span if self.longest_span else 0.0

    @cached_property
    def longest_span(self) -> float:
        """The longest time from a worker's first action to its last one."""
        return max(float(end[-1] - start[0]) for start, end in zip(self.starts, self.ends, strict=True))

    @cached_property
    def messages(self) -> int:
        """How many arrays workers send each other in a step."""
        placement = self.table.placement
        crossings = sum(a != b for a, b in pairwise(placement))
        return crossings * self.table.n_micro_batches * (2 if self.table.kinds() - {Kind.FORWARD} else 1)

    def spans(self, worker: int) -> list[Span]:
        """Return the actions of a worker with their times."""
        actions = actions_of(self.table.lanes[worker], self.table.n_micro_batches)
        times = zip(self.starts[worker].tolist(), self.ends[worker].tolist(), strict=True)
        return [Span(action, start, end) for action, (start, end) in zip(actions, times, strict=True)]


def on_the_clock(
    table: ActionTable,
    times: Times = UNIT_TIMES,
    *,
    latency: Latency = 0.0,
    pairs_as_one: bool = False,
    first_trained: int = 0,
    waking: Waking = AWAKE,
) -> Timed:
    """Return when each action runs, if it begins as soon as its worker is free and awake and what it needs is there.

    `times` has the durations of F, I, W and B, float64, (4,), (stages, 4) or (stages, 4, micro-batches). An array
    arrives at another worker `latency` after it is computed; `latency[s]` is that between stages s and s + 1. With
    `pairs_as_one`, a pair begins when both halves can begin, takes as long as both, and sends nothing before its end.
    Stages below `first_trained` do F only (see stages.trained). Raises InvalidSchedule, like `replay.check`, if the
    program breaks a law.
    """
    if not is_lawful(table, first_trained):
        raise _broken(table)
    needs = ActionNeeds(table, times, latency)
    narrow = table.n_workers < _WIDE or pairs_as_one
    found = _by_worker(needs, pairs_as_one, waking) if narrow else _all_at_once(needs, waking)
    if found is None:
        raise _broken(table)
    return found


def as_workers_do(
    table: ActionTable, times: Times = UNIT_TIMES, *, latency: Latency = 0.0, weight_grad_group: int = 1
) -> Timed:
    """Return the dry run of a program as workers perform it, whose table has I and W instead of each B.

    The last W of a weight-gradient group computes the products of the whole group; the others take no time. `times` has
    the durations of F, I, W and B, float64, (4,) or (stages, 4); that of B is not used. Raises InvalidSchedule like
    `on_the_clock`.
    """
    done, m = apart(table), table.n_micro_batches
    if weight_grad_group > 1 or not all(_ascending_weights(lane, m) for lane in done.lanes):
        times = np.repeat(np.broadcast_to(times, (table.n_stages, 4))[..., None], m, axis=2)
        for lane in done.lanes:
            of_weights = kinds_of(lane, m) == W
            made = products_made(lane, m, weight_grad_group)
            times[stages_of(lane, m)[of_weights], W, lane[of_weights] % m] *= made[of_weights]
    try:
        return on_the_clock(done, times, latency=latency)
    except InvalidSchedule:
        raise _broken(table) from None  # which names the B, not its halves


def _ascending_weights(lane: Numbers, m: int) -> bool:
    """Whether each stage does its W's in ascending order. Then each computes its own product."""
    codes = lane[kinds_of(lane, m) == W]
    return bool((np.diff(codes[np.argsort(stages_of(codes, m), kind="stable")]) > 0).all())


def as_papers_count(table: ActionTable, times: Times = UNIT_TIMES) -> Timed:
    """Return the dry run that published figures are for: a B is one action, which sends nothing before its end. A pair
    (DualPipeV) begins when both halves can begin, takes as long as both, and sends nothing before its end. Sending
    takes no time. Raises InvalidSchedule like `on_the_clock`."""
    return on_the_clock(table, times, pairs_as_one=len(table.pairs) > 0)


def _broken(table: ActionTable) -> Exception:
    check(table.program())
    raise AssertionError("a program that breaks no law can be performed")


def is_lawful(table: ActionTable, first_trained: int = 0) -> bool:
    """Whether every stage does F, and then B, or I and later W, once for each micro-batch, and each lane has its own
    stages; those below `first_trained` do F only. Whether lanes wait for each other in a circle shows on the clock."""
    m, size = table.n_micro_batches, table.n_stages * table.n_micro_batches
    place = np.full(4 * size, -1)
    holder = np.full(table.n_stages, -1)
    for worker, lane in enumerate(table.lanes):
        if not len(lane) or lane.min() < 0 or lane.max() >= 4 * size:
            return False
        own = np.unique(stages_of(lane, m))
        if (holder[own] >= 0).any():
            return False
        holder[own] = worker
        place[lane] = np.arange(len(lane))
    at = place.reshape(table.n_stages, 4, m)
    there = at >= 0
    if there.sum() != sum(map(len, table.lanes)) or not there[:, F].all():
        return False
    if (there[:, I] != there[:, W]).any():
        return False
    if not there[:, (I, W, B)].any():
        return True  # an evaluation
    if there[:first_trained, (I, W, B)].any():
        return False
    at, there = at[first_trained:], there[first_trained:]
    if (there[:, I] == there[:, B]).any():
        return False
    first = np.where(there[:, B], at[:, B], at[:, I])
    return bool((at[:, F] < first).all() and (at[:, I] <= at[:, W]).all())


class ActionNeeds:
    """What each action needs from another stage, as a place in one array of end times.

    The rows of that array have m places each: first one of zeros (the input), then the forwards of each stage, its I's
    (or B's), one of zeros (the loss), and one place that nobody reads, for W's.
    """

    def __init__(self, table: ActionTable, times: Times, latency: Latency = 0.0) -> None:
        self.table, n, m = table, table.n_stages, table.n_micro_batches
        placement = np.array(table.placement)
        away = np.concatenate(
            [[0.0], (placement[1:] != placement[:-1]) * latency, [0.0]]
        )  # below each stage, and above
        self._late = np.stack([away[:-1], away[1:], np.zeros(n), away[1:]], axis=1)
        by_kind = times if np.ndim(times) == 3 else np.asarray(times)[..., None]
        self._times = np.broadcast_to(by_kind, (n, 4, m))
        self.n_places = (2 * n + 2) * m + 1

    def ends(self) -> Times:
        """Return the end times before the first action: zeros for inputs and losses, infinity for all others."""
        m, n = self.table.n_micro_batches, self.table.n_stages
        ended = np.full(self.n_places, np.inf)
        ended[:m] = ended[(2 * n + 1) * m :] = 0
        return ended

    def of(self, lane: Numbers) -> tuple[Numbers, Numbers, Times, Times]:
        """Return, for each action of a lane, the place that it needs, its own place, how long the needed array is on
        its way, and how long the action takes."""
        m, n = self.table.n_micro_batches, self.table.n_stages
        stage, kind, j = stages_of(lane, m), kinds_of(lane, m), lane % m
        forward, weight = kind == F, kind == W
        needed = np.where(forward, stage * m + j, np.where(weight, 0, (n + 2 + stage) * m + j))
        own = np.where(forward, (stage + 1) * m + j, np.where(weight, self.n_places - 1, (n + 1 + stage) * m + j))
        return needed, own, self._late[stage, kind], self._times[stage, kind, j]


def _by_worker(needs: ActionNeeds, pairs_as_one: bool, waking: Waking) -> Timed | None:
    """Every lane in turn runs as far as it can, until all are done. Return None if workers wait for ever."""
    table = needs.table
    ended = needs.ends().tolist()
    lanes = [_pieces(needs, lane, pairs_as_one) for lane in table.lanes]
    ends: list[list[float]] = [[] for _ in lanes]
    starts: list[list[float]] = [[] for _ in lanes]
    left = [next(lane, None) for lane in lanes]
    moved = True
    while moved:
        moved = False
        for worker, lane in enumerate(lanes):
            start, end = starts[worker], ends[worker]
            piece = left[worker]
            while piece is not None:
                ready = max(ended[needed] + late for needed, _, late, _ in piece)
                if ready == np.inf:
                    break
                free = end[-1] if end else 0.0
                now = max(free, waking.ready(free, ready))
                for _, _, _, duration in piece:
                    start.append(now)
                    now += duration
                    end.append(now)
                for _, own, _, _ in piece:
                    ended[own] = now
                piece, moved = next(lane, None), True
            left[worker] = piece
    if any(piece is not None for piece in left):
        return None
    return Timed(table, tuple(map(np.array, starts)), tuple(map(np.array, ends)))


_Piece = list[tuple[int, int, float, float]]


def _pieces(needs: ActionNeeds, lane: Numbers, pairs_as_one: bool) -> Iterator[_Piece]:
    """Yield what a worker performs as one: an action, or a pair."""
    actions = list(zip(*(column.tolist() for column in needs.of(lane)), strict=True))
    paired = np.isin(lane, needs.table.pairs).tolist() if pairs_as_one else [False] * len(lane)
    place = 0
    while place < len(actions):
        size = 2 if paired[place] else 1
        yield actions[place : place + size]
        place += size


def _all_at_once(needs: ActionNeeds, waking: Waking) -> Timed | None:
    """In each round, every worker performs its next action if what that needs is there. Return None if workers wait
    for ever."""
    table = needs.table
    n, longest = table.n_workers, max(map(len, table.lanes))
    needed, own = (np.full((n, longest + 1), needs.n_places) for _ in range(2))
    late, times = (np.zeros((n, longest + 1)) for _ in range(2))
    for w, lane in enumerate(table.lanes):
        end = len(lane)
        needed[w, :end], own[w, :end], late[w, :end], times[w, :end] = needs.of(lane)
    ended = np.append(needs.ends(), np.inf)  # the last place: what a worker at its end waits for
    starts, ends = np.zeros((n, longest)), np.zeros((n, longest))
    place, free = np.zeros(n, dtype=np.int64), np.zeros(n)
    everyone, left = np.arange(n), sum(map(len, table.lanes))
    while left:
        ready = ended[needed[everyone, place]]
        can = np.flatnonzero(ready < np.inf)
        if not len(can):
            return None
        at = place[can]
        come = ready[can] + late[can, at]
        if waking.takes:
            come = np.where(come - free[can] > waking.after, come + waking.takes, come)
        start = np.maximum(free[can], come)
        end = start + times[can, at]
        starts[can, at], ends[can, at] = start, end
        ended[own[can, at]] = free[can] = end
        place[can] += 1
        left -= len(can)
    lengths = list(map(len, table.lanes))
    return Timed(
        table,
        tuple(row[:length] for row, length in zip(starts, lengths, strict=True)),
        tuple(row[:length] for row, length in zip(ends, lengths, strict=True)),
    )
