"""The rows of metrics: one for each optimizer step, one for each evaluation.

[Note: one count of steps] A step is numbered by the updates made once it is done: the first is step 1, and an
evaluation has the number of the step whose weights it looked at. Epochs count from 1, too. It is the same number in
files, messages, traces and texts; what counts from 0 inside is called an index (decision 0014).

Light on purpose: a client reads rows where no array is ever made, so nothing here imports NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stages.orders import StepReport


@dataclass(frozen=True, slots=True)
class StepRow:
    """One optimizer step, as the whole pipeline saw it.

    step              updates made so far, this one included: the first step is 1
    epoch             the pass over the training rows that it belongs to, from 1
    samples           rows of the batch
    loss              mean over the batch, as the job's loss defines it, before the update
    seconds           of the slowest worker, from the end of the step before, without an evaluation between them
    grad_norm         norm of the gradients of all stages together, before clipping
    learning_rate     of the update
    bubble            share of their time in which workers waited for arrays or were held up sending, 0 to 1
    accuracy          share of the batch that is right, 0 to 1; None where the job is no classifier
    bubble_predicted  what the schedule alone would idle with the times measured lately, 0 to 1; None before that is
                      known, and for a batch of fewer micro-batches
    attempt           the life of the job's processes that made it, from 1: a job that was started again makes its
                      steps again
    """

    step: int
    epoch: int
    samples: int
    loss: float
    seconds: float
    grad_norm: float
    learning_rate: float
    bubble: float
    accuracy: float | None
    bubble_predicted: float | None = None
    attempt: int = 1

    def as_dict(self) -> dict[str, Any]:
        """The row of metrics.jsonl."""
        return _as_dict("step", self, StepRow)


@dataclass(frozen=True, slots=True)
class EvalRow:
    """An evaluation of the validation rows.

    step      updates made so far; the weights are those after the step of this number
    epoch     the one that this step belongs to, from 1
    loss      mean over all validation rows, as the job's loss defines it
    accuracy  share of them that is right, 0 to 1; None where the job is no classifier
    samples   validation rows
    attempt   as in StepRow
    """

    step: int
    epoch: int
    loss: float
    accuracy: float | None
    samples: int
    attempt: int = 1

    def as_dict(self) -> dict[str, Any]:
        """The row of metrics.jsonl."""
        return _as_dict("eval", self, EvalRow)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedStep(StepRow):
    """A step that was made in this process, with what no row tells.

    `reports` are the workers' own and `accounts` the line of accounts.jsonl; `ends_submission` says that it is the last
    of several that were submitted together, after which there is none for a while.
    """

    reports: tuple[StepReport, ...] = field(default=(), repr=False)
    accounts: dict[str, Any] | None = field(default=None, repr=False)
    ends_submission: bool = field(default=False, repr=False)


Row = StepRow | EvalRow


def _as_dict(kind: str, row: Row, columns: type[Row]) -> dict[str, Any]:
    """Without what is None, and without `attempt`, which the file's place tells."""
    values = {one.name: getattr(row, one.name) for one in fields(columns) if one.name != "attempt"}
    return {"kind": kind, **{name: value for name, value in values.items() if value is not None}}
