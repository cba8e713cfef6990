"""Predicts how much workers would idle through the schedule alone: a dry run with measured times.

In the dry run, sending takes no time, and every micro-batch takes its stage's mean time. A measured bubble above the
predicted one is the cost of sending, of waking up, and of times that vary.

[Note: as performed] Workers do a B as its I and then its W, and send ∂ℓ/∂input between the two. A W does nothing until
its weight-gradient group is complete; the last one computes the products of the whole group. The dry run does the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from coordinator.program.replay import Span, clock_spans
from coordinator.program.weight_groups import WeightGroups
from coordinator.timing.accounts import Bubble
from stages.actions import Action, Kind, Lane, Program
from stages.ledger import FORWARD, INPUT_GRADIENT, OTHER, UPDATE, WEIGHT_GRADIENT
from stages.orders import StepReport
from stages.trained import performed_lane

_EVERY_S = 1.0
_LARGEST_SHARE = 1 / 200  # of all time may go into dry runs, however large the program
_COLUMNS = {Kind.FORWARD: FORWARD, Kind.BACKWARD_INPUT: INPUT_GRADIENT, Kind.BACKWARD_WEIGHT: WEIGHT_GRADIENT}


@dataclass(frozen=True, slots=True)
class Prediction:
    """`spans[w]` has the actions of worker w with their times, in seconds since the beginning of the step; a B is its I
    and its W."""

    bubble: Bubble
    spans: tuple[tuple[Span, ...], ...]


class Predictor:
    """Predicts steps of `program`. About every second it makes a new prediction from the steps since the last one."""

    def __init__(
        self,
        program: Program,
        weight_grad_group: int = 1,
        clock: Callable[[], float] = time.perf_counter,
        *,
        first_trained: int = 0,
    ) -> None:
        self._program, self._clock = as_performed(program, first_trained), clock
        self._made = products(self._program, weight_grad_group)
        self._next = -float("inf")
        self._steps = 0
        self._action_seconds: dict[tuple[int, Kind], float] = {}
        self._upkeep = [0.0] * program.n_workers
        self.last: Prediction | None = None

    def add(self, reports: Sequence[StepReport]) -> None:
        """Take in a step of as many micro-batches as the program has."""
        self._steps += 1
        for worker, report in enumerate(reports):
            account = report.account
            self._upkeep[worker] += account.worker[OTHER]
            for stage, row in account.stages.items():
                self._upkeep[worker] += row[UPDATE]
                for kind, column in _COLUMNS.items():
                    key = stage, kind
                    self._action_seconds[key] = self._action_seconds.get(key, 0.0) + row[column]
        began = self._clock()
        if began >= self._next:
            self.last = self._predict()
            ended = self._clock()
            self._next = ended + max(_EVERY_S, (ended - began) / _LARGEST_SHARE)
            self._steps, self._action_seconds, self._upkeep = 0, {}, [0.0] * len(self._upkeep)

    def _predict(self) -> Prediction:
        actions = self._steps * self._program.n_micro_batches
        mean = {key: seconds / actions for key, seconds in self._action_seconds.items()}
        spans = clock_spans(self._program, durations(self._made, lambda stage, kind, _: mean[stage, kind]))
        bubble = dry_bubble(spans, self._program, [seconds / self._steps for seconds in self._upkeep])
        return Prediction(bubble, tuple(map(tuple, spans)))


def as_performed(program: Program, first_trained: int = 0) -> Program:
    """Return the program with each B as its two halves ([Note: as performed]), without the actions that stages below
    `first_trained` do not perform (see stages.trained)."""
    lanes = tuple(_apart(performed_lane(lane, first_trained)) for lane in program.lanes)
    return Program(program.name, program.n_stages, program.n_micro_batches, lanes)


def _apart(lane: Lane) -> Lane:
    found: list[Action] = []
    for action in lane:
        if action.kind is Kind.BACKWARD:
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


def dry_bubble(spans: Sequence[Sequence[Span]], program: Program, upkeep: Sequence[float]) -> Bubble:
    """Return the bubble of a dry run whose workers need `upkeep` seconds each between two steps.

    Idle time before an action belongs to the action's stage. The time until the slowest worker has ended its step
    belongs to the stage of the worker's first action, for which the worker then waits.
    """
    ends = [(lane[-1].end if lane else 0.0) + more for lane, more in zip(spans, upkeep, strict=True)]
    wall = max(ends)
    idle = [0.0] * program.n_stages
    for lane, end in zip(spans, ends, strict=True):
        before = 0.0
        for span in lane:
            idle[span.action.stage] += span.start - before
            before = span.end
        if lane:
            idle[lane[0].action.stage] += wall - end
    shares = tuple(seconds / wall if wall > 0 else 0.0 for seconds in idle)
    return Bubble(sum(shares) / len(spans), shares)
