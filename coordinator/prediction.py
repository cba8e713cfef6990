"""What the schedule alone would idle: the dry run of the program that is performed, with the times that were measured.

Arrays take no time to travel in a dry run, and every micro-batch takes its stage's mean. What is measured above it is
the price of sending, of waking up, and of times that vary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from coordinator.accounts import Bubble
from coordinator.replay import Span, replay
from stages.actions import Action, Kind, Program
from stages.ledger import FORWARD, INPUT_GRADIENT, OTHER, UPDATE, WEIGHT_GRADIENT
from stages.orders import StepReport

_EVERY_S = 1.0
_COLUMNS = {Kind.FORWARD: FORWARD, Kind.BACKWARD_INPUT: INPUT_GRADIENT, Kind.BACKWARD_WEIGHT: WEIGHT_GRADIENT}


@dataclass(frozen=True, slots=True)
class Prediction:
    """`spans[w]` is what worker w does when, in seconds from the step's beginning; a B as its I and its W."""

    bubble: Bubble
    spans: tuple[tuple[Span, ...], ...]


class Predictor:
    """Predicts for steps of `program`, anew about every second, from the steps since."""

    def __init__(self, program: Program, clock: Callable[[], float] = time.monotonic) -> None:
        self._program, self._clock = program, clock
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
        if self._clock() >= self._next:
            self.last = self._predict()
            self._next = self._clock() + _EVERY_S
            self._steps, self._action_seconds, self._upkeep = 0, {}, [0.0] * len(self._upkeep)

    def _predict(self) -> Prediction:
        actions = self._steps * self._program.n_micro_batches
        mean = {key: seconds / actions for key, seconds in self._action_seconds.items()}
        for stage in range(self._program.n_stages):
            mean[stage, Kind.BACKWARD] = mean[stage, Kind.BACKWARD_INPUT] + mean[stage, Kind.BACKWARD_WEIGHT]
        dry = replay(self._program, lambda action: mean[action.stage, action.kind])
        bubble = dry_bubble(dry.spans, self._program, [seconds / self._steps for seconds in self._upkeep])
        return Prediction(bubble, tuple(tuple(_apart(lane, mean)) for lane in dry.spans))


def _apart(lane: Sequence[Span], mean: Mapping[tuple[int, Kind], float]) -> Iterator[Span]:
    """The lane with each B as its two halves, which is how workers measure it."""
    for action, start, end in lane:
        if action.kind is not Kind.BACKWARD:
            yield Span(action, start, end)
            continue
        middle = min(end, start + mean[action.stage, Kind.BACKWARD_INPUT])
        yield Span(Action(action.stage, Kind.BACKWARD_INPUT, action.micro_batch), start, middle)
        yield Span(Action(action.stage, Kind.BACKWARD_WEIGHT, action.micro_batch), middle, end)


def dry_bubble(spans: Sequence[Sequence[Span]], program: Program, upkeep: Sequence[float]) -> Bubble:
    """The bubble of a dry run whose workers need `upkeep` seconds each between two steps.

    Idling before an action is its stage's; what remains until the slowest worker has ended its step is that of the
    worker's first stage, which is what it then waits for.
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
