"""Decides whether a run goes on after a failure: a pure function of the failure, those before it, and the policy.

[Note: what is worth another try] A lost process, node, link or host memory, a hang, and an exception from a worker are:
the cause may be outside the job. A user's mistake and a value that is not finite are not, because the run would come to
the same place with the same bits. For the same reason the same failure at the same place ends the run when it comes
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from stages.errors import (
    HostFailed,
    JobFailed,
    LinkLost,
    NonFinite,
    StageFailed,
    UnexpectedError,
    WorkerHung,
    WorkerLost,
)

_LONGEST_BACKOFF_S = 60.0


class Cause(StrEnum):
    """What happened to a worker."""

    PROCESS = "process lost"
    MEMORY = "out of memory"
    NODE = "node lost"
    LINK = "link lost"
    CUT_OFF = "cut off"
    HANG = "hang"
    EXCEPTION = "exception"


_OF_LOSS = {"process": Cause.PROCESS, "memory": Cause.MEMORY, "node": Cause.NODE, "link": Cause.CUT_OFF}
_OF_MACHINES = (Cause.NODE, Cause.CUT_OFF)
"""Losses that may come again at the same place: machines come and go."""
_UNCOUNTED = (*_OF_MACHINES, Cause.LINK)
"""Losses that do not count against `max_restarts`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """A failure that is worth another try. `worker` is replaced, unless only a link was lost: then all workers are
    connected anew. `step` is the number of updates that the run had made, or the step that failed if that is known.
    `where` and `message` tell failures of one worker apart, `fault` names the fault that was injected: two of them are
    never the same failure."""

    cause: Cause
    worker: int
    step: int
    where: str = ""
    message: str = ""
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """`max_restarts` losses are made good in a run. If the run made no new step since the last one, it waits
    `backoff_s` first, and twice as long each time."""

    max_restarts: int = 3
    backoff_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Retry:
    """Replace the worker after `after_s`, and go on."""

    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Report the failure. `why` is a clause to add to it; empty if its kind is never tried again."""

    why: str = ""


def loss_of(error: Exception, step: int, *, recovering: bool = False) -> Breakdown | None:
    """Return the failure as a loss; None if another try is of no use, or if no worker is known to be replaced.
    `recovering`: it happened while another worker was being replaced."""
    if not isinstance(error, JobFailed) or isinstance(error, NonFinite | HostFailed | UnexpectedError):
        return None
    if error.place is None or (isinstance(error, StageFailed) and error.mistake):
        return None
    place = error.place
    if isinstance(error, WorkerLost):
        when = "recovering" if recovering else ""
        return Breakdown(cause=_OF_LOSS[error.loss], worker=place.worker, step=step, where=when)
    where = f"{place.action} {place.step} {place.evaluating}"
    if isinstance(error, LinkLost):
        return Breakdown(cause=Cause.LINK, worker=place.worker, step=step)
    if isinstance(error, WorkerHung):
        return Breakdown(cause=Cause.HANG, worker=place.worker, step=step, where=where)
    first_line = str(error).partition("\n")[0]
    return Breakdown(
        cause=Cause.EXCEPTION, worker=place.worker, step=place.step or step, where=where, message=first_line
    )


def decide(loss: Breakdown | None, history: Sequence[Breakdown], policy: Policy) -> Retry | GiveUp:
    """Return what to do about a loss after those in `history`, the oldest first."""
    if loss is None or policy.max_restarts == 0:
        return GiveUp()
    if loss.cause not in _OF_MACHINES and loss in history:
        return GiveUp("the same failure came again after the worker had been replaced")
    if loss.cause not in _UNCOUNTED:
        counted = sum(one.cause not in _UNCOUNTED for one in history)
        if counted >= policy.max_restarts:
            return GiveUp(f"recovery.max_restarts: {policy.max_restarts} reached")
    in_a_row = 0
    for earlier in reversed(history):
        if earlier.step < loss.step:
            break
        in_a_row += 1
    return Retry(min(_LONGEST_BACKOFF_S, policy.backoff_s * 2 ** (in_a_row - 1)) if in_a_row else 0.0)
