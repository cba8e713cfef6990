"""Local improvement of a program for given times: moves of single actions that shorten the step.

Moves keep the order of each stage's F's, I's and W's, and no worker keeps more micro-batches than before. The result
depends on the arguments alone: what is tried is limited by a count, not by a clock.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from coordinator.program.table import ActionTable, F, I, Times, W, code

_REACH = 8  # places that an action moves at most
_SHORTER = 1 - 1e-9
"""A step is shorter only if it is shorter by more than rounding."""


@dataclass(frozen=True, slots=True)
class Improved:
    """A program with the time of its step."""

    table: ActionTable
    step: float


def improve(table: ActionTable, times: Times, latency: float, *, tries: int) -> Improved:
    """Return the program after moves that shorten its step, at most `tries` of them tried; its B's must be apart
    (`table.apart`). `times` and `latency` are those of `clock.on_the_clock`."""
    search = _Search(table, times, latency)
    search.run(tries)
    return Improved(search.table(), search.best)


class _Search:
    """Hill climbing. Actions are numbers: (stage · 3 + kind) · m + micro-batch."""

    def __init__(self, table: ActionTable, times: Times, latency: float) -> None:
        self._of, m, n = table, table.n_micro_batches, table.n_stages
        placement, times = table.placement, np.broadcast_to(times, (n, 4))
        self._m, self._n = m, n
        self._lanes = [(lane // (4 * m) * 3 * m + lane % (4 * m)).tolist() for lane in table.lanes]
        self._need, self._late, self._time = [-1] * (3 * m * n), [0.0] * (3 * m * n), [0.0] * (3 * m * n)
        for s in range(n):
            for kind, other in ((F, s - 1), (I, s + 1), (W, -1)):
                for j in range(m):
                    action = (s * 3 + kind) * m + j
                    self._time[action] = float(times[s, kind])
                    if 0 <= other < n:
                        self._need[action] = (other * 3 + kind) * m + j
                        self._late[action] = latency if placement[other] != placement[s] else 0.0
        self._most = [self._kept(lane) for lane in self._lanes]
        self._ended = [0.0] * (3 * m * n)
        self._chance = random.Random(0)
        step = self._perform()
        assert step is not None, "a program that keeps the laws can be performed"
        self.best = self._now = step
        self._best_lanes = [list(lane) for lane in self._lanes]

    def table(self) -> ActionTable:
        """Return the best program that was found."""
        m = self._m
        lanes = []
        for lane in self._best_lanes:
            actions = np.array(lane, dtype=np.int64)
            lanes.append(code(actions // (3 * m), actions // m % 3, actions % m, m))
        return ActionTable(self._of.name, self._n, m, tuple(lanes))

    def run(self, tries: int) -> None:
        """Try moves on the critical path. One that makes the step no longer is kept, so that the search does not stay
        on the first level ground."""
        left = tries
        while left > 0:
            moves = list(self._moves())
            self._chance.shuffle(moves)
            for worker, begin, end in moves:
                left -= 1
                if self._try(worker, begin, end) or left <= 0:
                    break
            else:
                return

    def _try(self, worker: int, begin: int, end: int) -> bool:
        """Move the action at `begin` of a lane to `end`; take it back if that is worse."""
        lane = self._lanes[worker]
        before, ended = list(lane), list(self._ended)
        lane.insert(end, lane.pop(begin))
        step = self._perform() if self._kept(lane) <= self._most[worker] else None
        if step is None or step * _SHORTER > self._now:
            self._lanes[worker], self._ended = before, ended
            return False
        self._now = step
        if step < self.best * _SHORTER:
            self.best, self._best_lanes = step, [list(lane) for lane in self._lanes]
        return True

    def _perform(self) -> float | None:
        """Perform the lanes; fill in `_ended`; return the length of the step, None if workers wait for ever."""
        ended = self._ended = [-1.0] * len(self._ended)
        need, late, time = self._need, self._late, self._time
        places, free = [0] * len(self._lanes), [0.0] * len(self._lanes)
        moved = True
        while moved:
            moved = False
            for worker, lane in enumerate(self._lanes):
                place, now, n = places[worker], free[worker], len(lane)
                first = place
                while place < n:
                    action = lane[place]
                    needed = need[action]
                    if needed >= 0:
                        there = ended[needed]
                        if there < 0:
                            break
                        there += late[action]
                        if there > now:
                            now = there
                    now += time[action]
                    ended[action] = now
                    place += 1
                if place > first:
                    moved, places[worker], free[worker] = True, place, now
        if any(place < len(lane) for place, lane in zip(places, self._lanes, strict=True)):
            return None
        return max(free)

    def _moves(self) -> Iterator[tuple[int, int, int]]:
        """Yield (worker, place, new place) of moves that may shorten the critical path: an action of it comes before
        the ones right before it, or one right before it comes after it."""
        place = {action: (worker, i) for worker, lane in enumerate(self._lanes) for i, action in enumerate(lane)}
        action = max((lane[-1] for lane in self._lanes), key=lambda last: self._ended[last])
        while action >= 0:
            worker, at = place[action]
            lane = self._lanes[worker]
            start = self._ended[action] - self._time[action]
            if at and self._ended[lane[at - 1]] >= start * _SHORTER:
                for back in range(1, _REACH + 1):
                    if at - back < 0 or self._bound(lane[at - back], action):
                        break
                    yield worker, at, at - back
                before = lane[at - 1]
                for onward in range(_REACH):
                    if at + onward >= len(lane) or self._bound(before, lane[at + onward]):
                        break
                    yield worker, at - 1, at + onward
                action = before
            else:
                action = self._need[action]

    def _bound(self, first: int, second: int) -> bool:
        """Whether the first of two actions of a worker must stay before the second: in the same stage, actions of the
        same kind, and F, I and W of the same micro-batch."""
        m = self._m
        return first // (3 * m) == second // (3 * m) and (first // m == second // m or first % m == second % m)

    def _kept(self, lane: list[int]) -> int:
        """Return the most micro-batches that a lane keeps, counted once a stage."""
        now = most = 0
        m = self._m
        for action in lane:
            kind = action // m % 3
            if kind == F:
                now += 1
                most = max(most, now)
            elif kind == W:
                now -= 1
        return most
