"""The common part of all schedules: a rule chooses each worker's next action, a clock of unit times decides when it
runs.

Performing the rule once gives the lanes. As they have been performed, they cannot deadlock, whatever the numbers of
stages, workers and micro-batches.

[Note: even rounds] A worker with several stages takes a round of micro-batches through each of its stages in turn. It
idles between two stages unless a round has at least as many micro-batches as there are workers: only then has the
first micro-batch come back when the last one has left. Rounds of exactly `n_workers` micro-batches, with a shorter
round at the end, therefore lose time unless m is a multiple of `n_workers`. Here m is cut into ⌊m / n_workers⌋ rounds
that are as even as possible, so none is short.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from stages.actions import Action, Kind, Program

_TICKS = {Kind.FORWARD: 1, Kind.BACKWARD_INPUT: 1, Kind.BACKWARD_WEIGHT: 1, Kind.BACKWARD: 2}

Queues = tuple[list[Action], list[Action]]
"""One worker's forwards and its backwards (B or I), each in the order in which it takes them."""


@dataclass
class WorkerState:
    """The state of a worker that a rule may use: its progress, and what it keeps."""

    forwards: list[Action]
    backwards: list[Action]
    next_forward: int = 0
    next_backward: int = 0
    owed: list[Action] = field(default_factory=list)  # weight gradients whose input gradient is done
    lane: list[Action] = field(default_factory=list)
    free_at: int = 0

    @property
    def in_flight(self) -> int:
        """Micro-batches (counted once a stage) whose forward is done and whose backward is not."""
        return self.next_forward - self.next_backward

    @property
    def forwards_done(self) -> bool:
        """Whether all forwards are done."""
        return self.next_forward == len(self.forwards)

    @property
    def done(self) -> bool:
        """Whether all actions are done."""
        return self.forwards_done and self.next_backward == len(self.backwards) and not self.owed


Rule = Callable[[int, WorkerState, Action | None, Action | None], Action | None]
"""(worker, state, its next forward if that can run now, its next backward if that can run now) → the action to run, or
None to wait."""


def perform(name: str, n_stages: int, n_micro_batches: int, queues: Sequence[Queues], rule: Rule) -> Program:
    """Return the program of workers that follow `rule`. After an I among the backwards, the worker owes a W.

    If the rule would make all workers wait for ever, the first worker that has an action ready runs it.
    """
    states = [WorkerState(list(forwards), list(backwards)) for forwards, backwards in queues]
    ended: dict[Action, int] = {}
    now = 0
    while not all(state.done for state in states):
        for worker, state in enumerate(states):
            if state.free_at <= now:
                action = rule(worker, state, *_ready(state, n_stages, ended, now))
                if action is not None:
                    _start(state, action, ended, now)
        busy = [state.free_at for state in states if state.free_at > now]
        if busy:
            now = min(busy)
        else:
            _start_any(states, n_stages, ended, now)
    return Program(name, n_stages, n_micro_batches, tuple(tuple(state.lane) for state in states))


def _ready(
    state: WorkerState, n_stages: int, ended: dict[Action, int], now: int
) -> tuple[Action | None, Action | None]:
    def has_ended(action: Action) -> bool:
        return ended.get(action, now + 1) <= now

    forward = backward = None
    if not state.forwards_done:
        first = state.forwards[state.next_forward]
        if first.stage == 0 or has_ended(Action(first.stage - 1, Kind.FORWARD, first.micro_batch)):
            forward = first
    if state.next_backward < len(state.backwards):
        first = state.backwards[state.next_backward]
        s, j = first.stage, first.micro_batch
        above = s + 1 == n_stages or has_ended(Action(s + 1, first.kind, j))
        if above and has_ended(Action(s, Kind.FORWARD, j)):
            backward = first
    return forward, backward


def _start(state: WorkerState, action: Action, ended: dict[Action, int], now: int) -> None:
    state.lane.append(action)
    state.free_at = ended[action] = now + _TICKS[action.kind]
    if action.kind is Kind.FORWARD:
        state.next_forward += 1
    elif action.kind is Kind.BACKWARD_WEIGHT:
        state.owed.remove(action)
    else:
        state.next_backward += 1
        if action.kind is Kind.BACKWARD_INPUT:
            state.owed.append(Action(action.stage, Kind.BACKWARD_WEIGHT, action.micro_batch))


def _start_any(states: Sequence[WorkerState], n_stages: int, ended: dict[Action, int], now: int) -> None:
    """Start any ready action, because all workers wait; those that free arrays come first."""
    ready = [(state, *_ready(state, n_stages, ended, now)) for state in states]
    choices = [
        *((state, backward) for state, _, backward in ready if backward is not None),
        *((state, state.owed[0]) for state, _, _ in ready if state.owed),
        *((state, forward) for state, forward, _ in ready if forward is not None),
    ]
    assert choices, "the queues are in an order that pipelines allow, so something can always run"
    _start(*choices[0], ended, now)


def round_robin(n_stages: int, n_workers: int) -> list[range]:
    """Place stage s on worker s mod n_workers; return the stages of each worker."""
    return [range(worker, n_stages, n_workers) for worker in range(n_workers)]


def even_rounds(n_micro_batches: int, n_workers: int) -> list[range]:
    """Cut micro-batches into rounds of at least `n_workers`, if there are that many; see [Note: even rounds]."""
    n_rounds = max(1, n_micro_batches // n_workers)
    cuts = [n_micro_batches * i // n_rounds for i in range(n_rounds + 1)]
    return [range(first, last) for first, last in pairwise(cuts)]


def queue_up(placement: Sequence[Sequence[int]], rounds: Sequence[range], backward: Kind) -> list[Queues]:
    """Return each worker's queues: it takes a round through each of its stages in turn; backwards start at its last
    stage.

    Every stage takes its micro-batches in ascending order, forward and backward.
    """
    return [
        (
            [Action(s, Kind.FORWARD, j) for members in rounds for s in own for j in members],
            [Action(s, backward, j) for members in rounds for s in reversed(own) for j in members],
        )
        for own in placement
    ]
