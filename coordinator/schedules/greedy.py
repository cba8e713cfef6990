"""The common part of schedules: a rule chooses each worker's next action, a clock of unit times decides when it runs.

Performing the rule once gives the lanes. As they have been performed, they cannot deadlock, whatever the numbers of
stages, workers and micro-batches. A rule decides for all workers at once, in NumPy, so that large programs are built
fast.

[Note: even rounds] A worker with several stages takes a round of micro-batches through each of its stages in turn. It
idles between two stages unless a round has at least as many micro-batches as there are workers: only then has the
first micro-batch come back when the last one has left. Rounds of exactly `n_workers` micro-batches, with a shorter
round at the end, therefore lose time unless m is a multiple of `n_workers`. Here m is cut into ⌊m / n_workers⌋ rounds
that are as even as possible, so none is short.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from coordinator.program.table import UNIT_TIMES, ActionTable, B, F, I, Numbers, Times, W
from stages.actions import Kind

WAIT = -1

Queue = Sequence[Numbers]
"""For each worker, the cells (stage · m + micro-batch) of one kind of action, in the order in which it takes them."""


@dataclass(frozen=True, slots=True)
class WorkerStates:
    """What a rule may use. Arrays have a number for each worker in the last axis, those of heads one for each queue in
    the first.

    `forward` and `backward`: whether the head of a queue can run now. `forwards` and `backwards`: how many of a queue
    are done. `owed`: weight gradients whose input gradient is done. A rule answers with the number of a queue (forward
    queues first, then backward queues), `weight` for a W, or WAIT.
    """

    forward: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    backward: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    forwards: Numbers
    backwards: Numbers
    owed: Numbers
    weight: int

    @property
    def in_flight(self) -> Numbers:
        """Micro-batches (counted once a stage) whose forward is done and whose backward is not."""
        return np.asarray(self.forwards.sum(axis=0) - self.backwards.sum(axis=0))


Rule = Callable[[WorkerStates], Numbers]


def perform(
    name: str, n_stages: int, n_micro_batches: int, forwards: Sequence[Queue], backwards: Sequence[Queue], kind: Kind,
    rule: Rule, times: Times = UNIT_TIMES,
) -> ActionTable:  # fmt: skip
    """Return the program of workers that follow `rule`, each with several forward and backward queues. `kind` is that
    of the backwards; after an I, the worker owes a W. `times` are those of F, I, W, B: (4,) or (stages, 4).

    If the rule would make all workers wait for ever, the first worker that has an action ready runs it.
    """
    return _Performance(n_stages, n_micro_batches, forwards, backwards, kind, rule, times).run(name)


class _Performance:
    """The workers, while they perform a rule.

    `_forward_end[cell + m]` and `_backward_end[cell]` are when the cell's forward and backward end. Row 0 of the first
    (the input) and row S of the second (the loss) are there from the beginning, and the rows above S never come: an
    empty queue's head is a cell of theirs.
    """

    def __init__(
        self, n_stages: int, m: int, forwards: Sequence[Queue], backwards: Sequence[Queue], kind: Kind, rule: Rule,
        times: Times,
    ) -> None:  # fmt: skip
        n = len(forwards[0])
        self._stages, self._m, self._rule = n_stages, m, rule
        self._times = np.broadcast_to(times, (n_stages, 4))
        self._backward_kind = I if kind is Kind.BACKWARD_INPUT else B
        nothing = (n_stages + 1) * m
        self._forward_cells, self._backward_cells = _stacked(forwards, nothing), _stacked(backwards, nothing)
        self._forward_end = np.full((n_stages + 3) * m, np.inf)
        self._forward_end[:m] = 0
        self._backward_end = np.full((n_stages + 3) * m, np.inf)
        self._backward_end[n_stages * m : nothing] = 0
        self._forwards = np.zeros((len(forwards), n), dtype=np.int64)
        self._backwards = np.zeros((len(backwards), n), dtype=np.int64)
        self._forward_heads, self._backward_heads = (
            self._forward_cells[..., 0].copy(),
            self._backward_cells[..., 0].copy(),
        )
        each = np.array([sum(len(queue[w]) for queue in forwards) for w in range(n)])
        self._owing = np.zeros((n, each.max() + 1 if self._backward_kind == I else 1), dtype=np.int64)
        self._owed_since, self._owed_done = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
        self._length = each * (3 if self._backward_kind == I else 2)
        self._lanes = np.zeros((n, self._length.max()), dtype=np.int64)
        self._places, self._free_at = np.zeros(n, dtype=np.int64), np.zeros(n)

    def run(self, name: str) -> ActionTable:
        now, left = 0.0, int(self._length.sum())
        while left:
            choice = self._rule(self._state(now))
            started = np.flatnonzero((choice != WAIT) & (self._free_at <= now))
            self._start(started, choice[started], now)
            left -= len(started)
            if (self._free_at[started] <= now).any():
                continue  # an action that takes no time is done already
            busy = self._free_at[self._free_at > now]
            if len(busy):
                now = float(busy.min())
            elif left:
                left -= len(self._start_any(now))
        lanes = tuple(lane[:length] for lane, length in zip(self._lanes, self._length, strict=True))
        return ActionTable(name, self._stages, self._m, lanes)

    def _state(self, now: float) -> WorkerStates:
        m = self._m
        forward = self._forward_end[self._forward_heads] <= now
        backward = self._backward_end[self._backward_heads + m] <= now
        backward &= self._forward_end[self._backward_heads + m] <= now
        owed = self._owed_since - self._owed_done
        weight = len(self._forwards) + len(self._backwards)
        return WorkerStates(forward, backward, self._forwards, self._backwards, owed, weight)

    def _start(self, workers: Numbers, choice: Numbers, now: float) -> None:
        n_forward, m = len(self._forwards), self._m
        weight = n_forward + len(self._backwards)
        cells, kinds = np.empty(len(workers), dtype=np.int64), np.full(len(workers), W)
        forward, backward, owed = choice < n_forward, (choice >= n_forward) & (choice < weight), choice == weight
        if forward.any():
            w, q = workers[forward], choice[forward]
            cells[forward], kinds[forward] = self._forward_heads[q, w], F
            self._forward_end[cells[forward] + m] = now + self._times[cells[forward] // m, F]
            self._forwards[q, w] += 1
            self._forward_heads[q, w] = self._forward_cells[q, w, self._forwards[q, w]]
        if backward.any():
            w, q = workers[backward], choice[backward] - n_forward
            done = cells[backward] = self._backward_heads[q, w]
            kinds[backward] = self._backward_kind
            self._backward_end[done] = now + self._times[done // m, self._backward_kind]
            self._backwards[q, w] += 1
            self._backward_heads[q, w] = self._backward_cells[q, w, self._backwards[q, w]]
            if self._backward_kind == I:
                self._owing[w, self._owed_since[w]] = done
                self._owed_since[w] += 1
        if owed.any():
            w = workers[owed]
            cells[owed] = self._owing[w, self._owed_done[w]]
            self._owed_done[w] += 1
        stage = cells // m
        self._lanes[workers, self._places[workers]] = (stage * 4 + kinds) * m + cells % m
        self._places[workers] += 1
        self._free_at[workers] = now + self._times[stage, kinds]

    def _start_any(self, now: float) -> Numbers:
        """Start any ready action, because all workers wait; those that free arrays come first."""
        state, n_forward = self._state(now), len(self._forwards)
        owing = np.flatnonzero(state.owed)
        choices = [
            *((w, n_forward + q) for q, w in np.argwhere(state.backward)),
            *((w, state.weight) for w in owing),
            *((w, q) for q, w in np.argwhere(state.forward)),
        ]
        assert choices, "the queues are in an order that pipelines allow, so something can always run"
        worker, choice = (np.array([number], dtype=np.int64) for number in choices[0])
        self._start(worker, choice, now)
        return worker


def _stacked(queues: Sequence[Queue], nothing: int) -> Numbers:
    """Return the queues as one array (queue, worker, place); each queue ends with `nothing`."""
    longest = max(len(own) for queue in queues for own in queue)
    cells = np.full((len(queues), len(queues[0]), longest + 1), nothing, dtype=np.int64)
    for q, queue in enumerate(queues):
        for w, own in enumerate(queue):
            cells[q, w, : len(own)] = own
    return cells


def round_robin(n_stages: int, n_workers: int) -> list[range]:
    """Place stage s on worker s mod n_workers; return the stages of each worker."""
    return [range(worker, n_stages, n_workers) for worker in range(n_workers)]


def even_rounds(n_micro_batches: int, n_workers: int) -> list[range]:
    """Cut micro-batches into rounds of at least `n_workers`, if there are that many; see [Note: even rounds]."""
    n_rounds = max(1, n_micro_batches // n_workers)
    cuts = [n_micro_batches * i // n_rounds for i in range(n_rounds + 1)]
    return [range(first, last) for first, last in pairwise(cuts)]


def queue_up(placement: Sequence[Sequence[int]], rounds: Sequence[range], m: int) -> tuple[Queue, Queue]:
    """Return the forward and the backward queue: each worker takes a round through each of its stages in turn;
    backwards start at its last stage.

    Every stage takes its micro-batches in ascending order, forward and backward.
    """

    def cells(own: Sequence[int]) -> Numbers:
        if len(own) == 1:
            return own[0] * m + np.arange(m)
        return np.concatenate([s * m + np.arange(r.start, r.stop) for r in rounds for s in own])

    return [cells(own) for own in placement], [cells(own[::-1]) for own in placement]
