"""Which stages take part in the backward pass.

[Note: untrained stages] A stage needs no ∂ℓ/∂(output) if neither it nor a stage below it has parameters that are
trained: it has none, or they are frozen. Such stages do only F and keep nothing; their B, I and W are not performed,
and no gradient is sent to them. Predictions of time, bytes and messages leave out the same actions, with the functions
of this file.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from stages.actions import Kind, Lane
from stages.spec import ModelSpec

STEPS_RUN_AHEAD = 2
"""The most steps whose arrays from an untrained stage can wait for the next worker: as many as are ordered at once."""


def first_trained_stage(model: ModelSpec, bounds: Sequence[int]) -> int:
    """The first stage with trained parameters; the number of stages if no layer has any. Those below it are
    untrained."""
    first = model.network.first_trained
    return sum(last <= first for last in bounds[1:])


def stage_of(operation: int, bounds: Sequence[int]) -> int:
    """Return the stage that holds an operation."""
    return bisect_right(bounds, operation) - 1


def performed_lane(lane: Lane, first_trained: int) -> Lane:
    """Return the actions of a lane that are performed: all but the backward actions of untrained stages."""
    return tuple(action for action in lane if action.kind is Kind.FORWARD or action.stage >= first_trained)


def runs_ahead(placement: Sequence[int], first_trained: int) -> bool:
    """Whether an untrained stage sends to another worker. No gradient comes back, so only orders hold it up."""
    last = min(first_trained, len(placement) - 1)
    return any(placement[s] != placement[s + 1] for s in range(last))
