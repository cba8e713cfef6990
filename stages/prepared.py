"""A stage's actions as lists of calls without arguments, recorded in one step and made again in the next ones.

[Note: prepared actions] If two steps have the same micro-batches, a worker performs the same actions in the same order,
and the pool is whole when a step begins. So an action may use the same arrays in every step: those that the pool lent
it in the step that was recorded. What is left of an action is a list of calls, `partial` objects of NumPy's functions
where a layer offers them, which Python calls without a frame. They are the same operations on as much memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from stages.actions import Kind
from stages.arrays import Array
from stages.layers.base import Call

_MOST_CALLS = 5_000
"""Of a stage's step. Each takes some 500 bytes, which the plan does not count."""


class PreparedAction(NamedTuple):
    """`take_in` copies the action's message (W has none); `calls` compute; `result` is what `BoundSteps.run` returns,
    and `memory` has the array of each slot afterwards."""

    take_in: Callable[[Array], object]
    calls: Sequence[Call]
    result: Array
    memory: list[Any]


class PreparedStep:
    """The actions of a step. The first step after `clear` is performed as ever, since the pool is empty; the second is
    recorded; all later ones use what was recorded.

    `allowed`: whether the stage's actions can be prepared at all.
    """

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed
        self._n_steps = self._n_micro_batches = self._n_calls = 0
        self._actions: dict[tuple[Kind, int], PreparedAction] = {}
        self.is_recorded = False
        """Whether the present step is recorded."""
        self.used: dict[tuple[Kind, int], PreparedAction] | None = None
        """What was recorded, if the present step uses it."""

    def clear(self) -> None:
        """Forget what was recorded, and so let the arrays go."""
        self._n_steps = self._n_calls = 0
        self._actions, self.is_recorded, self.used = {}, False, None

    def begin_step(self, n_micro_batches: int, *, alike: bool) -> None:
        """Decide what becomes of this step. `alike`: it is one of those that all perform the same actions."""
        self.is_recorded, self.used = False, None
        if not (self._allowed and alike):
            return
        if n_micro_batches != self._n_micro_batches:
            self.clear()
            self._n_micro_batches = n_micro_batches
        self._n_steps += 1
        if self._n_steps == 2:
            self.is_recorded = True
        elif len(self._actions) == 3 * n_micro_batches:
            self.used = self._actions

    def record(self, kind: Kind, micro_batch: int, action: PreparedAction) -> Array:
        """Keep an action of the present step (if there are very many calls, none of them); return its result."""
        self._actions[kind, micro_batch] = action
        self._n_calls += len(action.calls)
        if self._n_calls > _MOST_CALLS:
            self._allowed = False
            self.clear()
        return action.result
