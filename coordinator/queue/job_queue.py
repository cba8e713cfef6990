"""Decides which queued jobs of the job service start now, and why every other one waits.

[Note: backfill] Jobs of higher priority come first, then the queue is first in, first out. A job behind a waiting one
may start (backfill) only if no job ahead of it is delayed, in whatever order the running jobs end and however long the
job itself runs: running times are not known.

Let T be the cluster's CPUs, h those of a waiting job, and s the most CPUs, up to T − h, that any set of the jobs that
run or are further ahead takes together. The waiting job starts as soon as at most T − h CPUs are taken, which means at
most s. The difference T − h − s is its slack: backfilled jobs that take no more than the slack cannot delay it. So
backfill may give away the least slack of all jobs ahead, and giving away k CPUs lowers every slack by exactly k. Subset
sums are the bits of an int (bit x: some jobs take x CPUs together). They include sets that can never run together,
which makes slack too small, never too large.

This counts only CPUs, so a job is backfilled only if nothing but CPUs can be short, wherever Ray places workers:
- Memory. Divide each worker's memory by its CPUs. On every node, as many CPUs as the node has, those with the most
  memory among all jobs concerned, must fit into the node's memory.
- Several nodes. CPUs that are free in total can be too few on each node. That cannot happen if all workers ahead take
  the same g CPUs and the workers of all other jobs concerned take multiples of g: then every node's free CPUs are whole
  groups of g.

A job that does not fit into the empty cluster waits for nodes: it is never delayed, and it delays no other job. A job
of higher priority that is submitted later waits for backfilled jobs as for any other running job.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from math import gcd

from coordinator.texts import counted, size

LOOK_AHEAD = 1000
"""`choose` stops after this many waiting jobs (without those that wait for more nodes), which bounds its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a job takes while it is active: `workers` processes, and for each, on one node, `cpus` CPUs and `memory`
    bytes."""

    workers: int
    cpus: int
    memory: int

    @property
    def total_cpus(self) -> int:
        """CPUs of all workers together."""
        return self.workers * self.cpus

    @property
    def total_memory(self) -> int:
        """Bytes of all workers together."""
        return self.workers * self.memory

    def resolved(self, memory_per_cpu: int) -> Needs:
        """Return the needs with a worker's memory filled in if the job gives none: its CPUs' share of the node's
        memory."""
        return self if self.memory else Needs(workers=self.workers, cpus=self.cpus, memory=self.cpus * memory_per_cpu)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """CPUs and bytes of one node that workers may take in all, including those that are taken."""

    cpus: int
    memory: int

    def workers(self, needs: Needs) -> int:
        """Return how many workers of this job fit."""
        by_cpus = self.cpus // needs.cpus
        return min(by_cpus, self.memory // needs.memory) if needs.memory else by_cpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A queued job. `order` is unique and grows with each submission. Active jobs of a priority below `displaces_below`
    make room for it; None: no job does."""

    job: str
    priority: int
    order: int
    needs: Needs
    displaces_below: int | None = None


class Queue:
    """Waiting jobs in the order of their turn: larger priority first, then smaller `order`."""

    def __init__(self, jobs: Iterable[Waiting] = ()) -> None:
        self._jobs = {waiting.job: waiting for waiting in jobs}
        self._turns = sorted(_turn(waiting) for waiting in self._jobs.values())

    def __len__(self) -> int:
        return len(self._turns)

    def __contains__(self, job: str) -> bool:
        return job in self._jobs

    def __iter__(self) -> Iterator[Waiting]:
        return (self._jobs[job] for _, _, job in self._turns)

    def add(self, waiting: Waiting) -> None:
        """Add a job that is not in the queue."""
        assert waiting.job not in self._jobs, f"{waiting.job} is queued twice"
        self._jobs[waiting.job] = waiting
        insort(self._turns, _turn(waiting))

    def remove(self, job: str) -> Waiting:
        """Remove a job and return it. Raises KeyError if it is not in the queue."""
        del self._turns[self.position(job) - 1]
        return self._jobs.pop(job)

    def position(self, job: str) -> int:
        """Return a job's position, from 1. Raises KeyError if it is not in the queue."""
        return bisect_left(self._turns, _turn(self._jobs[job])) + 1


def _turn(waiting: Waiting) -> tuple[int, int, str]:
    return (-waiting.priority, waiting.order, waiting.job)


class Choice:
    """The jobs that start now, in order, and the reasons why the other jobs wait."""

    def __init__(self, starts: Sequence[Waiting], room: _Room, backfill: _Backfill | None) -> None:
        self.starts = tuple(waiting.job for waiting in starts)
        self._started, self._room, self._backfill = frozenset(self.starts), room, backfill
        self._lacks: dict[tuple[Needs, bool], str] = {}  # many jobs of a long queue have the same needs

    def explain(self, waiting: Waiting, position: int) -> str:
        """Return one line: why a job of the queue given to `choose` waits. `position` does not count jobs that start
        now."""
        room, needs = self._room, waiting.needs
        if waiting.job in self._started:
            return "starts now"
        if not room.known:
            return "waits for Ray to start"
        kind = (needs, position == 1)
        lack = self._lacks.get(kind)
        if lack is None:
            if not room.could_hold(needs):
                return _never(needs, room)
            if not room.holds(needs):
                lack = self._lacks[kind] = _lack(needs, room, totals=position == 1)
        if lack is not None:
            ahead = f"; {counted(position - 1, 'job')} ahead" if position > 1 else ""
            return f"position {position:,}: {lack}{ahead}"
        if self._backfill is not None:
            delayed = self._backfill.delayed_by(waiting)
            if delayed is not None:
                return f"position {position:,}: would fit, but must not delay job {delayed.job} ahead"
            if self._backfill.n_waiting == LOOK_AHEAD:
                return f"position {position:,}: would fit, but backfill considers only {LOOK_AHEAD:,} waiting jobs"
        return "starts now"  # it was not in the queue at the time of the choice


def choose(queue: Iterable[Waiting], active: Sequence[Needs], nodes: Sequence[Capacity]) -> Choice:
    """Choose the jobs that start. `queue` is in the order of turns, `active` are the jobs that hold CPUs; see
    [Note: backfill].

    Whether a job fits is exact if there is one node or all workers are of one size. Otherwise active workers are
    assumed to be where first-fit-decreasing puts them; Ray, which places the workers, may still find no room.
    """
    room = _Room(active, nodes)
    starts: list[Waiting] = []
    backfill: _Backfill | None = None
    for waiting in queue:
        if room.free_cpus == 0:
            break
        if not room.could_hold(waiting.needs):
            continue
        if (backfill is None or backfill.admits(waiting.needs)) and room.holds(waiting.needs):
            starts.append(waiting)
            room.take(waiting.needs)
            if backfill is not None:
                backfill.give(waiting.needs)
            continue
        if backfill is None:
            backfill = _Backfill(waiting, [*active, *(started.needs for started in starts)], room)
        backfill.wait(waiting)
        if backfill.slack == 0 or backfill.n_waiting == LOOK_AHEAD:
            break
    return Choice(starts, room, backfill)


def first_in_turn(queue: Iterable[Waiting], nodes: Sequence[Capacity]) -> Waiting | None:
    """Return the first job of the queue that does not wait for more nodes; None if there is none."""
    room = _Room((), nodes)
    return next((waiting for waiting in queue if room.could_hold(waiting.needs)), None)


def fits(needs: Needs, active: Iterable[Needs], nodes: Sequence[Capacity]) -> bool:
    """Whether a job fits beside active ones, by the rules of `choose`."""
    return _Room(active, nodes).holds(needs)


class _Memory:
    """Decides whether, for the jobs added, every node runs out of CPUs before memory: see [Note: backfill]."""

    def __init__(self, nodes: Iterable[Capacity]) -> None:
        self.suffices = True
        self._nodes = frozenset(nodes)
        self._most = max((node.cpus for node in self._nodes), default=0)
        self._heaviest: tuple[int, ...] = ()  # bytes per CPU, heaviest first, at most `_most`

    def add(self, needs: Needs) -> None:
        share = -(-needs.memory // needs.cpus)
        if len(self._heaviest) == self._most and (not self._heaviest or share <= self._heaviest[-1]):
            return
        shares = [share] * min(needs.total_cpus, self._most)
        self._heaviest = tuple(sorted((*self._heaviest, *shares), reverse=True)[: self._most])
        self.suffices = all(sum(self._heaviest[: node.cpus]) <= node.memory for node in self._nodes)

    def suffices_with(self, needs: Needs) -> bool:
        more = copy(self)
        more.add(needs)
        return more.suffices


class _Room:
    """The nodes and what is free on them. During one choice, what is free only shrinks."""

    def __init__(self, active: Iterable[Needs], nodes: Iterable[Capacity]) -> None:
        nodes = sorted(nodes, key=lambda node: (node.cpus, node.memory))  # small nodes first, to keep large ones free
        self.known = bool(nodes)
        self.nodes = [node for node in nodes if node.cpus]
        self.cpus, self.memory = sum(node.cpus for node in self.nodes), sum(node.memory for node in self.nodes)
        self.memory_guard = _Memory(self.nodes)
        self.grain = 0  # greatest common divisor of the active workers' CPUs; 0 for none
        self._used_cpus = self._used_memory = 0
        self._spare = list(self.nodes)
        self.placed = True  # whether first-fit-decreasing found a node for every active worker
        self._holds: dict[Needs, int] = {}
        self._could_hold: dict[Needs, bool] = {}
        sizes: Counter[tuple[int, int]] = Counter()
        for needs in active:
            sizes[needs.cpus, needs.memory] += needs.workers
        for (cpus, memory), workers in sorted(sizes.items(), reverse=True):
            self.take(Needs(workers=workers, cpus=cpus, memory=memory))

    @property
    def free_cpus(self) -> int:
        return max(0, self.cpus - self._used_cpus)  # the difference is negative if a node was lost

    @property
    def free_memory(self) -> int:
        return max(0, self.memory - self._used_memory)

    def take(self, needs: Needs) -> None:
        left = needs.workers
        for n, spare in enumerate(self._spare):
            workers = min(left, spare.workers(needs))
            if workers:
                self._spare[n] = Capacity(
                    cpus=spare.cpus - workers * needs.cpus, memory=spare.memory - workers * needs.memory
                )
                left -= workers
        self.placed = self.placed and left == 0
        self._used_cpus, self._used_memory = self._used_cpus + needs.total_cpus, self._used_memory + needs.total_memory
        self.grain = gcd(self.grain, needs.cpus)
        self.memory_guard.add(needs)
        self._holds.clear()

    def could_hold(self, needs: Needs) -> bool:
        """Whether the job would fit if nothing were active."""
        if needs not in self._could_hold:
            self._could_hold[needs] = sum(node.workers(needs) for node in self.nodes) >= needs.workers
        return self._could_hold[needs]

    def holds(self, needs: Needs) -> bool:
        """Whether the job fits now."""
        return needs.total_cpus <= self.free_cpus and self.workers(needs) == needs.workers

    def workers(self, needs: Needs) -> int:
        """Return how many of the job's workers fit now."""
        if needs not in self._holds:
            several = len(self.nodes) > 1
            if several and self.grain % needs.cpus == 0 and self.memory_guard.suffices_with(needs):
                # true wherever the active workers are: every node's free CPUs are whole groups of `cpus`
                workers = sum(node.cpus // needs.cpus for node in self.nodes) - self._used_cpus // needs.cpus
            else:
                workers = sum(spare.workers(needs) for spare in self._spare) if self.placed else 0
            self._holds[needs] = max(0, min(workers, needs.workers))
        return self._holds[needs]


class _Backfill:
    """The CPUs that jobs behind the first waiting one may take: see [Note: backfill]."""

    def __init__(self, head: Waiting, active: Iterable[Needs], room: _Room) -> None:
        self._head = head
        self._grain = head.needs.cpus if len(room.nodes) > 1 else 0  # 0: one node, on which workers of any size fit
        self._cpus = sum(node.cpus - node.cpus % (self._grain or 1) for node in room.nodes)
        self._even = not self._grain or room.grain % self._grain == 0
        self._memory = copy(room.memory_guard)
        self._sums = 1
        for needs in active:
            self._join(needs)
        self.n_waiting = 0
        self.slack = self._cpus
        self._given = 0
        self._least: list[tuple[int, Waiting]] = []  # slacks less than all before them, plus `_given` at that time

    def admits(self, needs: Needs) -> bool:
        even = not self._grain or needs.cpus % self._grain == 0
        return needs.total_cpus <= self.slack and even and self._memory.suffices_with(needs)

    def give(self, needs: Needs) -> None:
        self._memory.add(needs)
        self._join(needs)
        self.slack -= needs.total_cpus
        self._given += needs.total_cpus

    def wait(self, waiting: Waiting) -> None:
        needs = waiting.needs
        self.n_waiting += 1
        self._memory.add(needs)
        self._even = self._even and (not self._grain or needs.cpus == self._grain)
        slack = 0
        if self._even and self._memory.suffices:
            most = self._cpus - needs.total_cpus
            slack = most + 1 - (self._sums & ((2 << most) - 1)).bit_length()
            self._join(needs)
        if slack < self.slack:
            self.slack = slack
            self._least.append((slack + self._given, waiting))

    def delayed_by(self, waiting: Waiting) -> Waiting | None:
        """Return the first job ahead that this one could delay; None if there is none."""
        for slack, ahead in self._least:
            if waiting.needs.total_cpus > slack - self._given:
                return self._head if ahead.job == waiting.job else ahead
        return None

    def _join(self, needs: Needs) -> None:
        self._sums |= (self._sums << needs.total_cpus) & ((2 << self._cpus) - 1)


def _lack(needs: Needs, room: _Room, *, totals: bool) -> str:
    lacks = []
    if needs.total_cpus > room.free_cpus:
        of = f" of {room.cpus:,}" if totals else ""
        lacks.append(f"{counted(needs.total_cpus, 'CPU')}, {room.free_cpus:,}{of} free")
    elif needs.total_memory > room.free_memory:  # freed CPUs bring their share of memory with them
        of = f" of {size(room.memory, 'down')}" if totals else ""
        lacks.append(f"{size(needs.total_memory, 'up')} of memory, {size(room.free_memory, 'down')}{of} free")
    if lacks:
        return f"needs {', and '.join(lacks)}"
    if not room.placed:  # a node was lost, or first-fit found no place for all active workers
        return "waits until an active job ends"
    return f"free room is scattered over nodes: holds {room.workers(needs):,} of {_workers(needs)}"


def _never(needs: Needs, room: _Room) -> str:
    cpus = max((node.cpus for node in room.nodes), default=0)
    memory = max((node.memory for node in room.nodes), default=0)
    if needs.total_cpus > room.cpus:
        why = f"needs {counted(needs.total_cpus, 'CPU')}, the whole cluster has {room.cpus:,}"
    elif needs.total_memory > room.memory:
        has = size(room.memory, "down")
        why = f"needs {size(needs.total_memory, 'up')} of memory, the whole cluster has {has}"
    elif needs.cpus > cpus:
        why = f"a worker needs {counted(needs.cpus, 'CPU')}, the largest node has {cpus:,}"
    elif needs.memory > memory:
        has = size(memory, "down")
        why = f"a worker needs {size(needs.memory, 'up')} of memory, the largest node has {has}"
    else:
        held = sum(node.workers(needs) for node in room.nodes)
        why = f"the empty cluster holds {held:,} of {_workers(needs)}"
    return f"{why}: waits for more nodes"


def _workers(needs: Needs) -> str:
    each = f"{counted(needs.cpus, 'CPU')} and {size(needs.memory, 'up')}"
    return f"{counted(needs.workers, 'worker')} of {each} each"
