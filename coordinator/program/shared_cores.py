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
from coordinator.program.link_rooms import Link, LinkRooms
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
    held: list[float] = field(default_factory=list)
    """How long each action waited for room before its array was sent."""
    sent: list[tuple[int, float]] = field(default_factory=list)
    """Of each action, the receiver of its array and the bytes; none: -1."""
    awaits: bool = False
    """Whether it waits for an array or for room, and takes in what comes."""


@dataclass(slots=True)
class _LinkState:
    """A link with bounded room. `inside` has the bytes of the arrays in it, by their places, in the order in which they
    were sent; an array that is taken makes room when all before it are taken."""

    room: float
    inside: dict[int, float] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)
    used: float = 0.0
    held_since: float | None = None
    """Since when the sender waits for room."""

    def put(self, place: int, n_bytes: float) -> bool:
        """Put an array into the link if it has room; return whether it had. An empty link has room for any."""
        if self.inside and self.used + n_bytes > self.room:
            return False
        self.inside[place] = n_bytes
        self.used += n_bytes
        return True

    def take(self, place: int) -> bool:
        """Take an array out; return whether that made room."""
        if place not in self.inside:
            return False
        self.taken.add(place)
        made = False
        for first in list(self.inside):
            if first not in self.taken:
                break
            self.taken.remove(first)
            self.used -= self.inside.pop(first)
            made = True
        return made

    def empty(self) -> None:
        """Take everything out."""
        self.inside.clear()
        self.taken.clear()
        self.used = 0.0


def on_shared_cores(
    table: ActionTable,
    times: Times,
    shared: SharedCores,
    *,
    latency: Latency = 0.0,
    first_trained: int = 0,
    waking: Waking = AWAKE,
    rooms: LinkRooms | None = None,
) -> Timed:
    """Return when each action runs; see [Note: turns] and, with `rooms`, [Note: room]. Other arguments as of
    `clock.on_the_clock`. From an action's start to its end may pass more time than its duration, if its worker lost the
    core meanwhile, or waited for room (`Timed.held`)."""
    assert is_lawful(table, first_trained), "the program keeps the laws"
    return _Clock(table, times, shared, latency, waking, rooms).run()


class _Clock:
    def __init__(
        self,
        table: ActionTable,
        times: Times,
        shared: SharedCores,
        latency: Latency,
        waking: Waking,
        rooms: LinkRooms | None,
    ) -> None:
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
        self._links: dict[Link, _LinkState] = {}
        if rooms is not None:
            for worker, lane in enumerate(self._lanes):
                receivers, n_bytes = rooms.sent(table, worker)
                lane.sent = list(zip(receivers.tolist(), n_bytes.tolist(), strict=True))
            self._links = {link: _LinkState(room) for link, room in rooms.room.items()}
        self._into: list[list[Link]] = [
            [link for link in self._links if link[1] == worker] for worker in range(len(self._lanes))
        ]

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
        starts, ends, held = (
            tuple(np.array(column) for column in columns)
            for columns in zip(*((lane.starts, lane.ends, lane.held) for lane in lanes), strict=True)
        )
        return Timed(self._table, starts, ends, held if self._links else ())

    def _post(self, at: float, worker: int, computed: float) -> None:
        self._count += 1
        heapq.heappush(self._events, (at, self._count, worker, computed))

    def _look(self, worker: int, now: float) -> bool:
        """Find out when the worker's next action can begin; return whether it can now. If not, an event follows."""
        lane = self._lanes[worker]
        if lane.place == len(lane.actions):
            self._take_in(worker, now)
            return False
        needed, _, late, _ = lane.actions[lane.place]
        ready = self._ended[needed] + late
        if ready == inf:
            self._waiting[needed] = worker
            self._take_in(worker, now)
            return False
        if ready > now or not lane.ends:
            self._post(max(self._waking.ready(now, ready), now), worker, -1.0)
            if ready > now:
                self._take_in(worker, now)
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
            lane.awaits = False
            self._fetch(worker, lane.actions[lane.place][0], now)
        span = min(lane.left, lane.turn_left)
        self._post(now + span, worker, span)

    def _advance(self, worker: int, now: float, computed: float) -> None:
        lane = self._lanes[worker]
        lane.left -= computed
        lane.turn_left -= computed
        if lane.left <= 0:
            if not self._send(worker, now):
                self._release(lane.host, now)
                return
            self._complete(worker, now, 0.0)
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

    # links, see [Note: room] ---------------------------------------------------------------------------------------

    def _send(self, worker: int, now: float) -> bool:
        """Put what the worker's action sends into its link; return whether there was room. If not, the worker is held
        until there is."""
        lane = self._lanes[worker]
        if not lane.sent:
            return True
        receiver, n_bytes = lane.sent[lane.place]
        if receiver < 0:
            return True
        link = self._links[worker, receiver]
        own = lane.actions[lane.place][1]
        if link.put(own, n_bytes):
            return True
        if self._lanes[receiver].awaits:
            link.empty()
            link.put(own, n_bytes)
            return True
        link.held_since = now
        self._take_in(worker, now)
        return False

    def _take_in(self, worker: int, now: float) -> None:
        """The worker waits: it takes all that is there out of its links, and whoever waits for room goes on."""
        self._lanes[worker].awaits = True
        for link in self._into[worker]:
            self._links[link].empty()
            self._go_on_sending(link, now)

    def _fetch(self, worker: int, needed: int, now: float) -> None:
        """The worker takes the array that it needs out of its link."""
        for link in self._into[worker]:
            if self._links[link].take(needed):
                self._go_on_sending(link, now)

    def _go_on_sending(self, link: Link, now: float) -> None:
        """Send the array that is held, if it has room now."""
        state, (worker, _) = self._links[link], link
        if state.held_since is None:
            return
        lane = self._lanes[worker]
        if not state.put(lane.actions[lane.place][1], lane.sent[lane.place][1]):
            return
        held, state.held_since = now - state.held_since, None
        lane.awaits = False
        self._complete(worker, now, held)
        if self._look(worker, now):
            self._post(now, worker, -1.0)

    def _complete(self, worker: int, now: float, held: float) -> None:
        lane = self._lanes[worker]
        lane.held.append(held)
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
