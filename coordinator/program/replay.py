"""The dry run of a program, without workers and arrays: its laws, its times, the micro-batches it keeps alive.

check(program)                  # raises InvalidSchedule with the place marked
replay(program).bubble          # idle share, with F = I = W = 1 and B = 2
replay(program, seconds)        # … with a duration for each action
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, cast

from coordinator.program.drawing import draw
from coordinator.program.laws import Violation, broken_law, deadlock, needs, performed_as
from coordinator.program.weight_groups import WeightGroups
from stages.actions import Action, Kind, Lane, Program
from stages.errors import InvalidSchedule
from stages.trained import performed_lane

UNIT_TIMES: Mapping[Kind, float] = {
    Kind.FORWARD: 1.0,
    Kind.BACKWARD_INPUT: 1.0,
    Kind.BACKWARD_WEIGHT: 1.0,
    Kind.BACKWARD: 2.0,
}

Durations = Callable[[Action], float] | Mapping[Action, float] | Mapping[Kind, float]
"""How long actions take: a function, or a mapping by action or by kind, in any unit. Results have the same unit."""


class Span(NamedTuple):
    """An action on the clock of a dry run."""

    action: Action
    start: float
    end: float


@dataclass(frozen=True)
class Replay:
    """The result of a dry run. Times are in the unit of the durations; alive counts are micro-batches.

    `spans[w]` has the actions of worker w with their times. `peak_alive[s]` is the most micro-batches that stage s
    keeps between F and its weight gradient's product; `peak_saved_for_input[s]` between F and its input gradient;
    `worker_peak_alive[w]` is `peak_alive` of all of worker w's stages together.
    """

    program: Program
    spans: tuple[tuple[Span, ...], ...]
    peak_alive: tuple[int, ...]
    peak_saved_for_input: tuple[int, ...]
    worker_peak_alive: tuple[int, ...]

    @cached_property
    def makespan(self) -> float:
        """From the first action's start to the last one's end."""
        return max((span.end for lane in self.spans for span in lane), default=0.0)

    @cached_property
    def busy(self) -> tuple[float, ...]:
        """Time in which each worker computes."""
        return tuple(sum(span.end - span.start for span in lane) for lane in self.spans)

    @cached_property
    def idle(self) -> tuple[float, ...]:
        """Time in which each worker waits."""
        return tuple(self.makespan - busy for busy in self.busy)

    @cached_property
    def bubbles(self) -> tuple[float, ...]:
        """Idle share of each worker's time."""
        return tuple(idle / self.makespan if self.makespan else 0.0 for idle in self.idle)

    @cached_property
    def bubble(self) -> float:
        """Idle share of all workers' time: 1 − busy / (workers × makespan)."""
        return sum(self.bubbles) / len(self.bubbles)


def check(program: Program, *, backward: bool = True) -> None:
    """Raise InvalidSchedule, which names and draws the place, if the program breaks a law or workers would wait for
    ever.

    With `backward=False` the program is an evaluation: every F, and nothing else.
    """
    _require_laws(program, backward)
    clock_spans(program, lambda action: 1.0)


def replay(
    program: Program, durations: Durations = UNIT_TIMES, *, weight_grad_group: int = 1, first_trained: int = 0
) -> Replay:
    """Perform the program on a clock on which sending takes no time. Raises InvalidSchedule as `check` does.

    With `weight_grad_group` g, the values of micro-batch j are kept until the weight product of its group j // g, and
    groups are done in ascending order (see stages.stage, [Note: ascending weight gradients]). The product has no time
    of its own: each W (and B) takes its duration at its own place in the lane. Stages below `first_trained` only run
    forward and keep nothing (see stages.trained).
    """
    if weight_grad_group < 1:
        raise ValueError(f"weight_grad_group is {weight_grad_group}, must be at least 1")
    backward = any(action.kind is not Kind.FORWARD for lane in program.lanes for action in lane)
    _require_laws(program, backward)
    lanes = tuple(performed_lane(lane, first_trained) for lane in program.lanes)
    program = replace(program, lanes=lanes)
    spans = clock_spans(program, _as_function(durations))
    kept_from = first_trained if backward else program.n_stages
    watches = [_watch(lane, program.n_micro_batches, weight_grad_group, kept_from) for lane in lanes]
    by_stage = {stage: watch for watch in watches for stage in watch.alive}
    stages = range(program.n_stages)
    return Replay(
        program=program,
        spans=tuple(tuple(lane) for lane in spans),
        peak_alive=tuple(by_stage[s].alive[s] for s in stages),
        peak_saved_for_input=tuple(by_stage[s].for_input[s] for s in stages),
        worker_peak_alive=tuple(watch.together for watch in watches),
    )


def _require_laws(program: Program, backward: bool) -> None:
    found = broken_law(program, backward=backward)
    if found is not None:
        raise _drawn(program, found)


def _drawn(program: Program, found: Violation) -> InvalidSchedule:
    """Return the violation as an error with a drawing of the program and the place marked; without a place, no
    drawing."""
    grid = draw(program, found.mark, found.notes, found.gaps) if found.mark or found.notes else ""
    return InvalidSchedule(f"{program.name}: {found.text}", grid)


def _as_function(durations: Durations) -> Callable[[Action], float]:
    if callable(durations):
        return durations
    table = cast(Mapping[Action | Kind, float], durations)
    return lambda action: table[action] if action in table else table[action.kind]


def clock_spans(program: Program, duration: Callable[[Action], float]) -> list[list[Span]]:
    """Return each worker's actions with their times, for a program that keeps the laws. Every lane in turn runs as far
    as it can until all are done. Raises InvalidSchedule if workers would wait for ever."""
    ended: dict[Action, float] = {}
    holder = {action: worker for worker, lane in enumerate(program.lanes) for action in lane}
    spans: list[list[Span]] = [[] for _ in program.lanes]
    moved = True
    while moved:
        moved = False
        for lane, done in zip(program.lanes, spans, strict=True):
            for action in lane[len(done) :]:
                sources = [performed_as(needed, holder) for needed in needs(action, program.n_stages)]
                if any(source not in ended for source in sources):
                    break
                start = max((done[-1].end if done else 0.0, *(ended[source] for source in sources)))
                ended[action] = start + duration(action)
                done.append(Span(action, start, ended[action]))
                moved = True
    stuck = [lane[len(done)] for lane, done in zip(program.lanes, spans, strict=True) if len(done) < len(lane)]
    if stuck:
        raise _drawn(program, deadlock(program, stuck, ended))
    return spans


# what is kept ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Watch:
    """Peaks of the micro-batches kept by one worker: for each stage, and for its stages together."""

    alive: dict[int, int]
    for_input: dict[int, int]
    together: int


class _Kept:
    """The micro-batches that one stage keeps, action by action, as stages.stage.Stage keeps them."""

    def __init__(self, n_micro_batches: int, group: int) -> None:
        self.alive: set[int] = set()
        self.for_input: set[int] = set()
        self._groups = WeightGroups(n_micro_batches, group)

    def follow(self, action: Action) -> None:
        """Update what is kept after `action`."""
        if action.kind is Kind.FORWARD:
            self.alive.add(action.micro_batch)
            self.for_input.add(action.micro_batch)
        if action.kind in (Kind.BACKWARD, Kind.BACKWARD_INPUT):
            self.for_input.remove(action.micro_batch)
        if action.kind in (Kind.BACKWARD, Kind.BACKWARD_WEIGHT):
            self.alive.difference_update(self._groups.mark(action.micro_batch))


def _watch(lane: Lane, n_micro_batches: int, group: int, kept_from: int) -> _Watch:
    kept = {stage: _Kept(n_micro_batches, group) for stage in {action.stage for action in lane}}
    alive, for_input, together = dict.fromkeys(kept, 0), dict.fromkeys(kept, 0), 0
    now = 0
    for action in lane:
        s = action.stage
        if s < kept_from:
            continue
        now -= len(kept[s].alive)
        kept[s].follow(action)
        now += len(kept[s].alive)
        alive[s] = max(alive[s], len(kept[s].alive))
        for_input[s] = max(for_input[s], len(kept[s].for_input))
        together = max(together, now)
    return _Watch(alive, for_input, together)
