"""The model of a step's time: a dry run in which sending, updates and shared cores take time, too.

step = timed_step(table, costs)
step.seconds, step.bubble.total, step.by_cause["links"]

[Note: steps one after another] Without a barrier the next step begins before all workers have ended this one. So the
dry run performs several steps in a row, and a step's time is the mean of the later ones. With a barrier (clipping) it
is one step alone, and the time until the next one begins.

[Note: causes] Each worker's time in a step is divided without a remainder. `forward`, `input_gradient`,
`weight_gradient`, `update`, `send` and `other` are as in the accounts of a run. What is left is waiting, and three dry
runs say why: `schedule` is what the order of the actions alone costs, as if arrays came at once; `links` is what is
added because arrays take time on their way, and workers take them in and wake up for them; `cores` is what is added
because workers share cores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from coordinator.program.clock import AWAKE, Timed, Waking, on_the_clock
from coordinator.program.link_rooms import LinkRooms
from coordinator.program.replay import Span
from coordinator.program.shared_cores import SharedCores, on_shared_cores
from coordinator.program.table import ActionTable, B, F, I, Times, W, kinds_of, repeated, stages_of
from coordinator.timing.accounts import Bubble

CAUSES = (
    "forward",
    "input_gradient",
    "weight_gradient",
    "update",
    "send",
    "other",
    "schedule",
    "links",
    "cores",
)
"""See [Note: causes]. The last three are waiting."""
WAITING = CAUSES[-3:]
_MOST_STEPS = 8
_MOST_ACTIONS = 100_000
"""Of all steps of a dry run, if it performs more than one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepCosts:
    """How long everything in a step takes, in seconds. Arrays are (stages, 4, micro-batches) for F, I, W and B.

    `compute` is the work itself; `receive` keeps the worker busy before it and `send` after it. `late[s]` is how long
    an array is on its way between stages s and s + 1. `update[w]` and `other[w]` are by worker. `barrier` is the time
    between two steps that do not overlap; None if they do.
    """

    compute: Times
    send: Times
    receive: Times
    late: Times
    update: tuple[float, ...]
    other: tuple[float, ...]
    shared: SharedCores
    barrier: float | None = None
    first_trained: int = 0
    """The first stage that does more than F (see stages.trained)."""
    rooms: LinkRooms | None = None
    """The room of the links between workers of one host; None: any."""
    waking: Waking = AWAKE
    """When a worker that waits for an array sleeps, and how long it takes to wake up."""

    @property
    def without_links(self) -> StepCosts:
        """The same, as if arrays came at once."""
        none = np.zeros_like(self.send)
        return replace(self, send=none, receive=none, late=np.zeros_like(self.late), waking=AWAKE, rooms=None)


@dataclass(frozen=True, eq=False)
class PredictedStep:
    """A step's predicted time in seconds.

    `spans[w]` has the actions of worker w, which begin with receiving and end with sending, in seconds since the step's
    first action. The bubble is what the accounts of a run count as idle: waiting, receiving and sending.
    """

    seconds: float
    spans: tuple[tuple[Span, ...], ...]
    bubble: Bubble
    find_causes: Callable[[], tuple[Mapping[str, float], ...]] = field(repr=False)

    @cached_property
    def by_worker(self) -> tuple[Mapping[str, float], ...]:
        """The causes of each worker in seconds, found at the first look."""
        return self.find_causes()

    @cached_property
    def by_cause(self) -> Mapping[str, float]:
        """The causes in seconds, means of the workers; together they are `seconds`."""
        return {cause: sum(row[cause] for row in self.by_worker) / len(self.by_worker) for cause in CAUSES}


def timed_step(table: ActionTable, costs: StepCosts) -> PredictedStep:
    """Return the prediction for a program as workers perform it (`table.apart`, but for stages that do I and W
    together). Raises InvalidSchedule if it breaks a law."""
    run = _Run(table, costs)
    return PredictedStep(run.seconds, run.spans(), run.bubble(), lambda: _causes(run))


def _causes(run: _Run) -> tuple[Mapping[str, float], ...]:
    table, costs = run.table, run.costs
    n, threads = table.n_workers, costs.shared.threads
    alone = replace(costs, shared=replace(costs.shared, host_of=(0,) * n, cores=(n * threads,)))
    of_links = _Run(table, alone) if costs.shared.is_tight else run
    of_schedule = _Run(table, alone.without_links)
    rows = []
    for w in range(n):
        row = run.busy(w)
        idle = max(0.0, run.seconds - sum(row.values()))
        schedule = min(idle, max(0.0, of_schedule.seconds - sum(of_schedule.busy(w).values())))
        links = min(idle - schedule, max(0.0, of_links.seconds - sum(of_links.busy(w).values()) - schedule))
        if not costs.shared.is_tight:
            schedule = idle - links
        rows.append({**row, "schedule": schedule, "links": links, "cores": idle - schedule - links})
    return tuple(rows)


class _Run:
    """A dry run of several steps, and what is read off the later ones."""

    def __init__(self, table: ActionTable, costs: StepCosts) -> None:
        self.table, self.costs = table, costs
        self._lengths = list(map(len, table.lanes))
        steps = 1 if costs.barrier is not None else min(_MOST_STEPS, max(1, _MOST_ACTIONS // sum(self._lengths)))
        self._first, self._steps = steps // 2, steps
        self._timed = self._clock(repeated(table, steps), np.tile(self._durations(), (1, 1, steps)))
        counted = self._end(steps) - self._end(self._first)
        self.seconds = counted / (steps - self._first) + (costs.barrier or 0.0)

    def _durations(self) -> Times:
        """Return how long each action keeps its worker. The update, and what else a worker does between two steps, come
        after the last action, or before the first one if something is sent at the end of the last one."""
        costs, m = self.costs, self.table.n_micro_batches
        found = np.asarray(costs.compute + costs.send + costs.receive)
        for worker, lane in enumerate(self.table.lanes):
            place = -1 if kinds_of(lane[-1:], m)[0] == W else 0
            code = int(lane[place])
            found[code // (4 * m), code // m % 4, code % m] += costs.update[worker] + costs.other[worker]
        return found

    def _clock(self, table: ActionTable, times: Times) -> Timed:
        costs = self.costs
        common: dict[str, Any] = {
            "latency": costs.late,
            "first_trained": costs.first_trained,
            "waking": costs.waking,
        }
        rooms = None if costs.rooms is None else costs.rooms.repeated(self._steps)
        if costs.shared.is_tight:
            return on_shared_cores(table, times, costs.shared, rooms=rooms, **common)
        plain = on_the_clock(table, times, **common)
        if rooms is None or not rooms.may_be_short(table, plain.starts, plain.ends):
            return plain
        n = table.n_workers
        own = SharedCores(host_of=tuple(range(n)), cores=(1,) * n, turn=math.inf)
        return on_shared_cores(table, times, own, rooms=rooms, **common)

    def _end(self, steps: int) -> float:
        """Return when the last worker has ended so many steps."""
        if not steps:
            return 0.0
        ends = zip(self._timed.ends, self._lengths, strict=True)
        return max(float(of_worker[steps * length - 1]) for of_worker, length in ends)

    def busy(self, worker: int) -> dict[str, float]:
        """Return the seconds of a step in which a worker does something, by cause."""
        costs, m = self.costs, self.table.n_micro_batches
        lane = self.table.lanes[worker]
        stage, kind, j = stages_of(lane, m), kinds_of(lane, m), lane % m
        compute = costs.compute[stage, kind, j]
        return {
            "forward": float(compute[kind == F].sum()),
            "input_gradient": float(compute[(kind == I) | (kind == B)].sum()),
            "weight_gradient": float(compute[kind == W].sum()),
            "update": costs.update[worker],
            "send": float((costs.send[stage, kind, j] + self._held(worker)).sum()),
            "other": costs.other[worker] + (costs.barrier or 0.0),
        }

    def _held(self, worker: int) -> Times:
        """Return how long each action of a worker waits for room, a mean over the later steps."""
        n = self._lengths[worker]
        if not self._timed.held:
            return np.zeros(n)
        held: Times = self._timed.held[worker][self._first * n :].reshape(-1, n).mean(axis=0)
        return held

    def spans(self) -> tuple[tuple[Span, ...], ...]:
        """Return the actions of one of the later steps, from its first action on."""
        found = [self._timed.spans(worker) for worker in range(self.table.n_workers)]
        m, step = self.table.n_micro_batches, self._first
        own = [lane[step * n : (step + 1) * n] for lane, n in zip(found, self._lengths, strict=True)]
        zero = min(lane[0].start for lane in own)
        return tuple(
            tuple(
                Span(replace(action, micro_batch=action.micro_batch - step * m), start - zero, end - zero)
                for action, start, end in lane
            )
            for lane in own
        )

    def bubble(self) -> Bubble:
        """Return what is neither computing nor the time between two steps, by stage: an action's gap before it, and its
        receiving and sending."""
        costs, table, m = self.costs, self.table, self.table.n_micro_batches
        shares = [0.0] * table.n_stages
        for worker, lane in enumerate(table.lanes):
            n, first = len(lane), self._first
            stage, kind, j = stages_of(lane, m), kinds_of(lane, m), lane % m
            starts, ends = (times[worker][first * n :] for times in (self._timed.starts, self._timed.ends))
            before = np.concatenate([[self._timed.ends[worker][first * n - 1] if first else 0.0], ends[:-1]])
            repeats = self._steps - first
            idle = (starts - before).reshape(repeats, n).mean(axis=0) + (costs.send + costs.receive)[stage, kind, j]
            idle += self._held(worker)
            of_stage = np.bincount(stage, weights=idle, minlength=table.n_stages)
            missing = self.seconds - (ends[-1] - before[0]) / repeats
            of_stage[int(stage[0])] += max(0.0, missing - (costs.barrier or 0.0))
            for s in np.flatnonzero(of_stage):
                shares[int(s)] += float(of_stage[s]) / self.seconds
        return Bubble(sum(shares) / table.n_workers, tuple(shares))
