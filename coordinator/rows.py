"""The rows of metrics: one for each optimizer step, one for each evaluation.

Light on purpose: a client reads rows where no array is ever made, so nothing here imports NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stages.orders import StepReport

_NOT_WRITTEN = ("reports", "accounts", "ends_submission", "attempt")
"""Fields that metrics.jsonl leaves out: what stands in files of its own, and what the file's place tells."""


@dataclass(frozen=True, slots=True)
class StepRow:
    """One optimizer step, as the whole pipeline saw it.

    `seconds` is the slowest worker's, from the end of the step before, without an evaluation between them. `bubble` is
    the share of their time in which workers waited for arrays or were held up sending, `bubble_predicted` what the dry
    run of the schedule says with the times measured lately. `reports` are the workers' own and `accounts` the line of
    accounts.jsonl, where the step was made in this process; `ends_submission` says that it is the last of several that
    were submitted together, after which there is none for a while. `attempt` counts the lives of a job's processes from
    1: a job that was started again makes its steps again.
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
    reports: tuple[StepReport, ...] = field(default=(), repr=False)
    accounts: dict[str, Any] | None = field(default=None, repr=False)
    ends_submission: bool = field(default=False, repr=False)
    attempt: int = 1

    def as_dict(self) -> dict[str, Any]:
        """The row of metrics.jsonl."""
        return _as_dict("step", self)


@dataclass(frozen=True, slots=True)
class EvalRow:
    """Loss and accuracy over all validation rows, after `step` steps. `attempt` as in StepRow."""

    step: int
    epoch: int
    loss: float
    accuracy: float | None
    samples: int
    attempt: int = 1

    def as_dict(self) -> dict[str, Any]:
        """The row of metrics.jsonl."""
        return _as_dict("eval", self)


Row = StepRow | EvalRow


def _as_dict(kind: str, row: Row) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in type(row).__slots__ if name not in _NOT_WRITTEN}
    return {"kind": kind, **{name: value for name, value in values.items() if value is not None}}
