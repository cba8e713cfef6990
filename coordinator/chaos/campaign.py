"""Random campaigns of faults: a pure function of the seed, the job's programs and the number of faults."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from coordinator.chaos.timetable import Timetable
from stages.actions import Program
from stages.orders import Fault, FaultKind

_WEIGHTS: dict[FaultKind, int] = {
    "kill": 6,
    "oom": 2,
    "slow": 2,
    "corrupt": 2,
    "disk-full": 2,
    "stop": 1,
    "partition": 1,
}
_SLOW_SECONDS, _SLOW_STEPS = 0.01, 2


class Planned(NamedTuple):
    """A fault of a worker."""

    worker: int
    fault: Fault


class _Drawn(NamedTuple):
    step: int
    worker: int
    place: int
    """Its place in the worker's points of the step."""
    point: str
    kind: FaultKind


def campaign(seed: int, n: int, timetable: Timetable) -> tuple[Planned, ...]:
    """Return `n` faults at random points of a job, in the order of steps; their ids are 1, 2, 3 …

    A `corrupt` is followed by a `kill` of the same worker in the same step, so that the damaged checkpoint is wanted.
    """
    rng = random.Random(seed)
    kinds, weights = zip(*_WEIGHTS.items(), strict=True)
    drawn: list[_Drawn] = []
    while len(drawn) < n:
        step = rng.randint(1, timetable.steps_total)
        program = timetable.program_of(step)
        worker = rng.randrange(program.n_workers)
        points = list(_points(program, worker, evaluated=timetable.is_evaluated(step)))
        (kind,) = rng.choices(kinds, weights)
        if kind == "corrupt" and len(drawn) + 2 > n:
            kind = "kill"
        place = rng.randrange(len(points) - 2 * (kind == "corrupt"))  # a kill follows, in the same step
        drawn.append(_Drawn(step, worker, place, points[place], kind))
        if kind == "corrupt":
            drawn.append(_Drawn(step, worker, place + 1, points[place + 1], "kill"))
    return tuple(
        Planned(
            one.worker,
            Fault(
                what=one.kind,
                step=one.step,
                action=one.point,
                id=str(number),
                seconds=_SLOW_SECONDS if one.kind == "slow" else 0.0,
                steps=_SLOW_STEPS if one.kind == "slow" else 1,
            ),
        )
        for number, one in enumerate(sorted(drawn), start=1)
    )


def _points(program: Program, worker: int, *, evaluated: bool) -> Iterator[str]:
    yield from map(str, program.lanes[worker])
    yield "update"
    if evaluated:
        yield "evaluation"
    yield "checkpoint"
