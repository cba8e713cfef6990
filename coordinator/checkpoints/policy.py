"""When to save a checkpoint, and which to keep: pure functions of numbers and of lists of checkpoints."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeptCheckpoint:
    """A checkpoint that is on the disk. `figure` is that of `checkpoint.best`; None if it was not evaluated."""

    step: int
    figure: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """Save every `steps` updates, or every `seconds`, or as often as keeps the training's stall at the share
    `stall_budget`. None: not by this rule."""

    steps: int | None = None
    seconds: float | None = None
    stall_budget: float | None = None


LEAST_INTERVAL_S = 30.0
"""The shortest interval by a stall budget."""
FIRST_INTERVAL_S = 30.0
"""The interval by a stall budget before a stall was measured."""


def interval_s(when: When, stall_s: float | None) -> float | None:
    """Return the seconds from one checkpoint to the next; None if they are counted in steps.

    `stall_s` is how long training stood still for the last one; None before the first.
    """
    if when.seconds is not None:
        return when.seconds
    if when.stall_budget is None:
        return None
    if stall_s is None:
        return FIRST_INTERVAL_S
    return max(LEAST_INTERVAL_S, stall_s / when.stall_budget)


def is_due(when: When, step: int, *, since_s: float, stall_s: float | None) -> bool:
    """Whether a checkpoint is saved after update `step`; the last one began `since_s` ago."""
    if when.steps is not None:
        return step % when.steps == 0
    wait = interval_s(when, stall_s)
    return wait is not None and since_s >= wait


def to_delete(
    kept: Sequence[KeptCheckpoint], *, keep: int, keep_every: int | None, best: str | None
) -> Collection[int]:
    """Return the steps of the checkpoints that are not needed any more.

    Needed are the `keep` newest, those whose step is a multiple of `keep_every` and, if `best` names a figure, the one
    with the best figure: the smallest loss, or the largest accuracy; the earlier of two that are alike.
    """
    newest = sorted((one.step for one in kept), reverse=True)
    needed = set(newest[:keep])
    needed |= {step for step in newest if keep_every is not None and step % keep_every == 0}
    if best is not None and (found := best_step(kept, best)) is not None:
        needed.add(found)
    return [step for step in newest if step not in needed]


def best_step(kept: Sequence[KeptCheckpoint], best: str) -> int | None:
    """Return the step of the checkpoint with the best figure `best`; None if none has one."""
    judged = [one for one in kept if one.figure is not None]
    sign = -1 if best.endswith("accuracy") else 1
    return min(judged, key=lambda one: (sign * (one.figure or 0.0), one.step)).step if judged else None
