"""Explains in one sentence why a run is slow and what to try, from the kinds of its workers' time.

`_RULES` lists the rules, the surest cause first. The first rule that applies gives the sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from stages.ledger import BUBBLE_KINDS, STAGE_KINDS

_WAITS = tuple(kind for kind in STAGE_KINDS if kind.startswith("wait_"))
_COMPUTE = tuple(kind for place, kind in enumerate(STAGE_KINDS) if place not in BUBBLE_KINDS)
_MUCH = 0.25
"""A share of the time below this is not reported."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Shares of time from 0 to 1, a number for each worker. `predicted` is the mean bubble of the schedule's dry run.
    `cpus` is the number of CPUs that all workers share; None if they are on several hosts or the number is not
    known."""

    compute: Sequence[float]
    wait: Sequence[float]
    send: Sequence[float]
    evaluate: Sequence[float]
    rest: Sequence[float]
    stages: Sequence[Sequence[int]]
    predicted: float | None
    cpus: int | None

    @property
    def idle(self) -> float:
        """The mean share that workers wait or send."""
        return _mean(self.wait) + _mean(self.send)


def why_slow(
    times: Sequence[Mapping[str, int]],
    stages: Sequence[Sequence[int]],
    predicted: Sequence[float] | None,
    *,
    cpus: int | None = None,
) -> str | None:
    """Return the main cause and what to try; None if no cause stands out or no time has passed.

    `times[w]` has worker w's time by kind (those of stages.ledger, any unit), `stages[w]` its stages and `predicted[w]`
    its bubble in the schedule's dry run (None: not known). `cpus` is the number of CPUs that all workers share, if they
    do.
    """
    walls = [sum(row.values()) - row.get("recovery", 0) for row in times]
    if not walls or min(walls) <= 0:
        return None

    def shares(kinds: Sequence[str]) -> list[float]:
        return [sum(row.get(kind, 0) for kind in kinds) / wall for row, wall in zip(times, walls, strict=True)]

    compute, wait, send, evaluate = map(shares, (_COMPUTE, _WAITS, ("send",), ("evaluation",)))
    rest = [1 - sum(parts) for parts in zip(compute, wait, send, evaluate, strict=True)]
    run = _Run(compute, wait, send, evaluate, rest, stages, None if predicted is None else _mean(predicted), cpus)
    return next((text for rule in _RULES if (text := rule(run))), None)


def _too_few_cpus(run: _Run) -> str | None:
    workers = len(run.compute)
    if run.cpus is None or workers <= run.cpus:
        return None
    cpus = "one CPU" if run.cpus == 1 else f"{run.cpus} CPUs"
    return f"{workers} workers share {cpus}: use no more workers than CPUs, such as --stages {run.cpus}"


def _evaluations(run: _Run) -> str | None:
    share = _mean(run.evaluate)
    if share < _MUCH:
        return None
    return (
        f"evaluations take {share:.0%} of the time: evaluate less often (`training.evaluate_every`), or use fewer "
        "validation rows"
    )


def _uneven(run: _Run) -> str | None:
    workers = range(len(run.compute))
    slowest = max(workers, key=run.compute.__getitem__)
    others = [run.wait[worker] for worker in workers if worker != slowest]
    most, wait = run.compute[slowest], _mean(others) if others else 0.0
    rival = max((run.compute[worker] for worker in workers if worker != slowest), default=0.0)
    if most < 0.6 or wait < _MUCH or rival > 0.75 * most:
        return None
    of = ", ".join(map(str, run.stages[slowest]))
    stage = f"stage {of}" if len(run.stages[slowest]) == 1 else f"stages {of}"
    who = "the others wait" if len(others) > 1 else "the other waits"
    return (
        f"worker {slowest} computes {most:.0%} of the time, {who} {wait:.0%} of it: move a layer away from {stage}, or "
        "use `pipeline.partition: measured`"
    )


def _the_schedule(run: _Run) -> str | None:
    if run.predicted is None or run.idle < _MUCH or run.predicted < 0.6 * run.idle:
        return None
    return (
        f"workers wait {run.idle:.0%} of the time, and the schedule alone makes them wait {run.predicted:.0%}: use "
        "more `training.micro_batches`, fewer stages, or `pipeline.schedule: zb-h1`"
    )


def _small_micro_batches(run: _Run) -> str | None:
    if run.idle < _MUCH or _mean(run.send) < 0.1:
        return None
    return (
        f"{_mean(run.wait):.0%} waiting, {_mean(run.send):.0%} sending: micro-batches are too small; raise "
        "`training.batch_size`, or use fewer `training.micro_batches`"
    )


def _waiting(run: _Run) -> str | None:
    if run.idle < _MUCH:
        return None
    alone = "" if run.predicted is None else f", {run.predicted:.0%} by the schedule alone"
    return (
        f"workers wait {run.idle:.0%} of the time{alone}: use larger micro-batches or fewer stages, and look whether "
        "other programs take the CPUs"
    )


def _short_steps(run: _Run) -> str | None:
    share = _mean(run.rest)
    if share < _MUCH:
        return None
    return f"{share:.0%} of the time passes between steps: they are too short; raise `training.batch_size`"


_RULES: tuple[Callable[[_Run], str | None], ...] = (
    _too_few_cpus,
    _evaluations,
    _uneven,
    _the_schedule,
    _small_micro_batches,
    _waiting,
    _short_steps,
)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
