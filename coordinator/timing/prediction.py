"""Predicts how much workers would idle through the schedule alone: a dry run with measured times.

In the dry run, sending takes no time, and every micro-batch takes its stage's mean time. A measured bubble above the
predicted one is the cost of sending, of waking up, and of times that vary.

[Note: as performed] Workers do a B as its I and then its W, and send ∂ℓ/∂input between the two. A W does nothing until
its weight-gradient group is complete; the last one computes the products of the whole group. The dry run does the same.

[Note: counted once] If a host has more workers than cores, a worker that could compute waits for a core: before an
action, which the ledger books as waiting, or in the middle of one, which it books as computing. The dry run shares the
cores itself, so it needs times without that: the measured ones, multiplied by the worker's CPU time over its time of
computing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coordinator.program.replay import Span
from coordinator.program.shared_cores import SharedCores
from coordinator.program.table import KINDS, actions_of, table_of
from coordinator.program.weight_groups import WeightGroups
from coordinator.timing.accounts import Bubble
from coordinator.timing.step_time import StepCosts, timed_step
from stages.actions import Action, Kind, Lane, Program
from stages.ledger import FORWARD, INPUT_GRADIENT, OTHER, SEND, UPDATE, WEIGHT_GRADIENT
from stages.orders import StepReport
from stages.trained import performed_lane

_EVERY_S = 1.0
_LARGEST_SHARE = 1 / 200  # of all time may go into dry runs, however large the program
_COLUMNS = {Kind.FORWARD: FORWARD, Kind.BACKWARD_INPUT: INPUT_GRADIENT, Kind.BACKWARD_WEIGHT: WEIGHT_GRADIENT}
_COMPUTING = (FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, UPDATE, SEND)
"""Kinds of time in which a worker uses its core."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """`spans[w]` has the actions of worker w with their times, in seconds since the beginning of the step; a B is its I
    and its W."""

    bubble: Bubble
    spans: tuple[tuple[Span, ...], ...]


class Predictor:
    """Predicts steps of `program`. About every second it makes a new prediction from the steps since the last one.

    `shared` says which workers share cores (None: each has its own; then its `turn` is in seconds). Steps follow one
    another without a pause, or, with `one_at_a_time`, a step begins when all workers have ended the one before.
    """

    def __init__(
        self,
        program: Program,
        weight_grad_group: int = 1,
        clock: Callable[[], float] = time.perf_counter,
        *,
        first_trained: int = 0,
        shared: SharedCores | None = None,
        one_at_a_time: bool = False,
    ) -> None:
        program, self._clock = as_performed(program, first_trained), clock
        self._table, self._first_trained = table_of(program), first_trained
        self._made = products(program, weight_grad_group)
        own = SharedCores(host_of=tuple(range(program.n_workers)), cores=(1,) * program.n_workers, turn=1.0)
        self._shared, self._barrier = shared or own, 0.0 if one_at_a_time else None
        self._next = -float("inf")
        self._steps = 0
        self._action_seconds: dict[tuple[int, Kind], float] = {}
        n = program.n_workers
        self._update, self._other, self._cpu, self._computing = ([0.0] * n for _ in range(4))
        self.last: Prediction | None = None

    def add(self, reports: Sequence[StepReport]) -> None:
        """Take in a step of as many micro-batches as the program has."""
        self._steps += 1
        for worker, report in enumerate(reports):
            account = report.account
            self._other[worker] += account.worker[OTHER]
            self._cpu[worker] += account.cpu
            for stage, row in account.stages.items():
                self._update[worker] += row[UPDATE]
                self._computing[worker] += sum(row[kind] for kind in _COMPUTING)
                for kind, column in _COLUMNS.items():
                    key = stage, kind
                    self._action_seconds[key] = self._action_seconds.get(key, 0.0) + row[column]
        began = self._clock()
        if began >= self._next:
            self.last = self._predict()
            ended = self._clock()
            self._next = ended + max(_EVERY_S, (ended - began) / _LARGEST_SHARE)
            self._steps, self._action_seconds = 0, {}
            for sums in (self._update, self._other, self._cpu, self._computing):
                sums[:] = [0.0] * len(sums)

    def _predict(self) -> Prediction:
        table, scale = self._table, self._scale()
        n, m = table.n_stages, table.n_micro_batches
        placement = table.placement
        actions = self._steps * m
        mean = {
            (s, kind): seconds / actions * scale[placement[s]] for (s, kind), seconds in self._action_seconds.items()
        }
        duration = durations(self._made, lambda stage, kind, _: mean[stage, kind])
        compute, none = np.zeros((n, len(KINDS), m)), np.zeros((n, len(KINDS), m))
        for lane in table.lanes:
            for code, action in zip(lane.tolist(), actions_of(lane, m), strict=True):
                compute.reshape(-1)[code] = duration(action)
        costs = StepCosts(
            compute=compute,
            send=none,
            receive=none,
            late=np.zeros(max(0, n - 1)),
            update=self._mean(self._update, scale),
            other=self._mean(self._other, [1.0] * len(scale)),
            shared=self._shared,
            barrier=self._barrier,
            first_trained=self._first_trained,
        )
        step = timed_step(table, costs)
        return Prediction(step.bubble, step.spans)

    def _mean(self, sums: Sequence[float], scale: Sequence[float]) -> tuple[float, ...]:
        return tuple(factor * seconds / self._steps for factor, seconds in zip(scale, sums, strict=True))

    def _scale(self) -> list[float]:
        """Return for each worker by which times become those on a core of its own, see [Note: counted once]."""
        if not self._shared.is_tight or self._shared.threads > 1:  # the CPU time is that of one thread
            return [1.0] * len(self._cpu)
        pairs = zip(self._cpu, self._computing, strict=True)
        return [min(1.0, cpu / seconds) if cpu > 0 and seconds > 0 else 1.0 for cpu, seconds in pairs]


def as_performed(program: Program, first_trained: int = 0, *, together: Collection[int] = ()) -> Program:
    """Return the program with each B as its two halves ([Note: as performed]), without the actions that stages below
    `first_trained` do not perform (see stages.trained). Stages `together` do a B as one, because they run forward
    again."""
    lanes = tuple(_apart(performed_lane(lane, first_trained), together) for lane in program.lanes)
    return Program(program.name, program.n_stages, program.n_micro_batches, lanes)


def _apart(lane: Lane, together: Collection[int]) -> Lane:
    found: list[Action] = []
    for action in lane:
        if action.kind is Kind.BACKWARD and action.stage not in together:
            found.append(Action(action.stage, Kind.BACKWARD_INPUT, action.micro_batch))
            found.append(Action(action.stage, Kind.BACKWARD_WEIGHT, action.micro_batch))
        else:
            found.append(action)
    return tuple(found)


def durations(made: Mapping[Action, range], seconds: Callable[[int, Kind, int], float]) -> Callable[[Action], float]:
    """Return how long the actions of a program as performed take, if stage s takes `seconds(s, kind, j)` for
    micro-batch j; `made` are its `products`. A run predicts with it from measured times, and `plan` from costs."""

    def duration(action: Action) -> float:
        if action.kind is Kind.BACKWARD_WEIGHT:
            return sum(seconds(action.stage, action.kind, j) for j in made[action])
        return seconds(action.stage, action.kind, action.micro_batch)

    return duration


def products(program: Program, group: int) -> Mapping[Action, range]:
    """Return the micro-batches whose weight gradients each W computes."""
    found: dict[Action, range] = {}
    for lane in program.lanes:
        groups: dict[int, WeightGroups] = {}
        for action in lane:
            if action.kind is Kind.BACKWARD_WEIGHT:
                own = groups.setdefault(action.stage, WeightGroups(program.n_micro_batches, group))
                found[action] = own.mark(action.micro_batch)
    return found
