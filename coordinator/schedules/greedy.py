"""The part that all schedules share: given what each worker would do next, let a clock decide when.

Every schedule here is a rule of preference. Performing it once on a clock of unit times turns the rule into lanes;
and because the lanes were performed, they cannot deadlock, whatever the numbers of stages, workers and micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from stages.actions import Action, Kind, Program

_TICKS = {Kind.FORWARD: 1, Kind.BACKWARD_INPUT: 1, Kind.BACKWARD_WEIGHT: 1, Kind.BACKWARD: 2}


@dataclass
class WorkerState:
    """What a rule may look at: the worker's next forward and backward, and what it keeps."""

    forwards: list[Action]
    backwards: list[Action]
    next_forward: int = 0
    next_backward: int = 0
    owed: list[Action] = field(default_factory=list)  # weight gradients whose input gradient is done
    lane: list[Action] = field(default_factory=list)
    free_at: int = 0

    @property
    def in_flight(self) -> int:
        """Micro-batches (counted once a stage) that went forward and not back."""
        return self.next_forward - self.next_backward

    @property
    def kept(self) -> int:
        """In flight, or back but still waiting for their weight gradient."""
        return self.in_flight + len(self.owed)

    @property
    def forwards_done(self) -> bool:
        """Nothing is left to go forward."""
        return self.next_forward == len(self.forwards)


Rule = Callable[[int, WorkerState, Action | None, Action | None], Action | None]
"""(worker, state, forward if it can run now, backward if it can run now) → what to do, or None to wait."""


def perform(
    name: str,
    n_stages: int,
    n_micro_batches: int,
    orders: Sequence[tuple[list[Action], list[Action]]],
    rule: Rule,
) -> Program:
    """Lanes of workers that follow `rule`; `orders[w]` are worker w's forwards and backwards, each in its order.

    Where the rule would let everybody wait for ever, the first worker that can go forward does.
    """
    states = [WorkerState(list(forwards), list(backwards)) for forwards, backwards in orders]
    ended: dict[Action, int] = {}
    now = 0
    while any(not s.forwards_done or s.next_backward < len(s.backwards) or s.owed for s in states):
        started = False
        for worker, state in enumerate(states):
            if state.free_at > now:
                continue
            forward, backward = _ready(state, n_stages, ended, now)
            action = rule(worker, state, forward, backward)
            if action is not None:
                _start(state, action, ended, now)
                started = True
        busy = [state.free_at for state in states if state.free_at > now]
        if not busy and not started:
            state, forward = next(
                (s, f) for s in states if (f := _ready(s, n_stages, ended, now)[0]) is not None
            )
            _start(state, forward, ended, now)
            busy = [state.free_at]
        now = min(busy, default=now)
    return Program(name, n_stages, n_micro_batches, tuple(tuple(state.lane) for state in states))


def _ready(
    state: WorkerState, n_stages: int, ended: dict[Action, int], now: int
) -> tuple[Action | None, Action | None]:
    def done(action: Action) -> bool:
        return ended.get(action, now + 1) <= now

    forward = backward = None
    if not state.forwards_done:
        forward = state.forwards[state.next_forward]
        if forward.stage and not done(Action(forward.stage - 1, Kind.FORWARD, forward.micro_batch)):
            forward = None
    if state.next_backward < len(state.backwards):
        backward = state.backwards[state.next_backward]
        s, j = backward.stage, backward.micro_batch
        above = s + 1 == n_stages or done(Action(s + 1, backward.kind, j))
        if not (above and done(Action(s, Kind.FORWARD, j))):
            backward = None
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


def round_robin(n_stages: int, n_workers: int) -> list[list[int]]:
    """Stage s on worker s mod n_workers."""
    return [list(range(worker, n_stages, n_workers)) for worker in range(n_workers)]


def grouped_orders(
    placement: Sequence[Sequence[int]], n_micro_batches: int, group: int, backward: Kind
) -> list[tuple[list[Action], list[Action]]]:
    """Forwards and backwards of each worker: `group` micro-batches through each of its stages in turn.

    Backwards take the stages from the last; each stage meets its micro-batches in ascending order both ways.
    """
    orders = []
    for own in placement:
        forwards, backwards = [], []
        for first in range(0, n_micro_batches, group):
            members = range(first, min(first + group, n_micro_batches))
            forwards += [Action(s, Kind.FORWARD, j) for s in own for j in members]
            backwards += [Action(s, backward, j) for s in reversed(own) for j in members]
        orders.append((forwards, backwards))
    return orders
