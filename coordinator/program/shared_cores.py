"""The dry run of workers that share cores: more workers on a host than it has cores for.

timed = on_shared_cores(table, times, SharedCores(host_of=(0, 0, 0, 0), cores=(2,), turn=3e-3))

[Note: turns] A worker that can compute waits for a free core, first come, first served, and keeps its core until it
waits for an array, or until its turn is over and another worker of the host waits for a core. So short actions are
performed whole, and long ones of several workers advance side by side, as under a common operating system. With a core
for each worker, the times are those of `clock.on_the_clock`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np

from coordinator.program.clock import AWAKE, ActionNeeds, Latency, Timed, Waking, is_lawful
from coordinator.program.table import ActionTable, Times

TURN_S = 3e-3
"""About how many seconds Linux lets a process keep its core while others wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedCores:
    """Which workers share which cores. Worker w is on host `host_of[w]`, host h has `cores[h]` cores, and a worker
    computes with `threads` of them. `turn` is the time after which a worker gives way, in the unit of the durations."""

    host_of: Sequence[int]
    cores: Sequence[int]
    threads: int = 1
    turn: float

    @property
    def is_tight(self) -> bool:
        """Whether a host has too few cores for its workers."""
        return any(self.host_of.count(host) > room for host, room in enumerate(self.rooms))

    @property
    def rooms(self) -> list[int]:
        """Return how many workers of each host can compute at once."""
        return [max(1, cores // self.threads) for cores in self.cores]


@dataclass(slots=True)
class _Lane:
    """One worker. `left` is what is left of its action, `turn_left` of its turn; it has a core if `running`."""

    host: int
    actions: list[tuple[int, int, float, float]]
    place: int = 0
    left: float = 0.0
    turn_left: float = 0.0
    started: bool = False
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)


def on_shared_cores(
    table: ActionTable,
    times: Times,
    shared: SharedCores,
    *,
    latency: Latency = 0.0,
    first_trained: int = 0,
    waking: Waking = AWAKE,
) -> Timed:
    """Return when each action runs; see [Note: turns]. Other arguments as of `clock.on_the_clock`. From an action's
    start to its end may pass more time than its duration, if its worker lost the core meanwhile."""
    assert is_lawful(table, first_trained), "the program keeps the laws"
    return _Clock(table, times, shared, latency, waking).run()


class _Clock:
    def __init__(self, table: ActionTable, times: Times, shared: SharedCores, latency: Latency, waking: Waking) -> None:
        needs = ActionNeeds(table, times, latency)
        self._table, self._turn, self._waking = table, shared.turn, waking
        self._ended = needs.ends().tolist()
        self._lanes = [
            _Lane(host, list(zip(*(column.tolist() for column in needs.of(lane)), strict=True)))
            for host, lane in zip(shared.host_of, table.lanes, strict=True)
        ]
        self._free = shared.rooms
        self._queues: list[deque[int]] = [deque() for _ in self._free]
        self._waiting: dict[int, int] = {}
        """By the place of an array, the worker that waits for it."""
        self._events: list[tuple[float, int, int, float]] = []
        """Time, a number in order, worker, and how long it has computed since it was given the core; −1: it can begin
        its action."""
        self._count = 0

    def run(self) -> Timed:
        for worker in range(len(self._lanes)):
            self._look(worker, 0.0)
        while self._events:
            now, _, worker, computed = heapq.heappop(self._events)
            if computed < 0:
                self._ask(worker, now)
            else:
                self._advance(worker, now, computed)
        assert all(lane.place == len(lane.actions) for lane in self._lanes), "workers wait for each other"
        lanes = self._lanes
        return Timed(
            self._table, tuple(np.array(lane.starts) for lane in lanes), tuple(np.array(lane.ends) for lane in lanes)
        )

    def _post(self, at: float, worker: int, computed: float) -> None:
        self._count += 1
        heapq.heappush(self._events, (at, self._count, worker, computed))

    def _look(self, worker: int, now: float) -> bool:
        """Find out when the worker's next action can begin; return whether it can now. If not, an event follows."""
        lane = self._lanes[worker]
        if lane.place == len(lane.actions):
            return False
        needed, _, late, _ = lane.actions[lane.place]
        ready = self._ended[needed] + late
        if ready == inf:
            self._waiting[needed] = worker
            return False
        if ready > now or not lane.ends:
            self._post(max(self._waking.ready(now, ready), now), worker, -1.0)
            return False
        return True

    def _ask(self, worker: int, now: float) -> None:
        """Give the worker a core, or let it wait for one."""
        host = self._lanes[worker].host
        if self._free[host]:
            self._free[host] -= 1
            self._begin_turn(worker, now)
        else:
            self._queues[host].append(worker)

    def _begin_turn(self, worker: int, now: float) -> None:
        self._lanes[worker].turn_left = self._turn
        self._go_on(worker, now)

    def _go_on(self, worker: int, now: float) -> None:
        """Compute, with the core, until the action is done or the turn is over."""
        lane = self._lanes[worker]
        if not lane.started:
            lane.started, lane.left = True, lane.actions[lane.place][3]
            lane.starts.append(now)
        span = min(lane.left, lane.turn_left)
        self._post(now + span, worker, span)

    def _advance(self, worker: int, now: float, computed: float) -> None:
        lane = self._lanes[worker]
        lane.left -= computed
        lane.turn_left -= computed
        if lane.left <= 0:
            self._complete(worker, now)
            if not self._look(worker, now):
                self._release(lane.host, now)
                return
        if lane.turn_left <= 0:
            queue = self._queues[lane.host]
            if queue:
                queue.append(worker)
                self._begin_turn(queue.popleft(), now)
                return
            lane.turn_left = self._turn
        self._go_on(worker, now)

    def _complete(self, worker: int, now: float) -> None:
        lane = self._lanes[worker]
        own = lane.actions[lane.place][1]
        self._ended[own] = now
        lane.ends.append(now)
        lane.place += 1
        lane.started = False
        reader = self._waiting.pop(own, None)
        if reader is not None:
            waits = self._lanes[reader]
            late, since = waits.actions[waits.place][2], waits.ends[-1] if waits.ends else 0.0
            self._post(self._waking.ready(since, now + late), reader, -1.0)

    def _release(self, host: int, now: float) -> None:
        queue = self._queues[host]
        if queue:
            self._begin_turn(queue.popleft(), now)
        else:
            self._free[host] += 1
