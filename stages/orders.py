"""What the coordinator asks of workers, and what they report. Every worker gets the same orders in the same order.

Orders and reports are named tuples because hundreds of them a second are pickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from stages.actions import Action, Lane
from stages.arrays import Array
from stages.ledger import Account
from stages.spec import ModelSpec, OptimizerSpec

Split = Literal["train", "validation"]
Part = Literal["parameters", "gradients"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault at a named point, for tests of what happens then: before `action` of step `step` (from 1), the worker
    does `what`.

    `hang` stops the process, `block` the thread, until another sets stages.faults.UNBLOCK; `slow` computes for
    `seconds` of CPU time; `lose` makes the next array that the worker sends get lost.
    """

    step: int
    action: str
    what: Literal["raise", "exit", "hang", "nan", "block", "slow", "lose"]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """All that a worker must know. `bounds[s]` … `bounds[s + 1]` are the layers of stage s; `placement[s]` its worker;
    `lanes[m]` what this worker does in a step of m micro-batches; stages of `recompute` run forward again before I."""

    worker: int
    model: ModelSpec
    optimizer: OptimizerSpec
    bounds: tuple[int, ...]
    placement: tuple[int, ...]
    lanes: Mapping[int, Lane]
    micro_batches: int
    weight_grad_group: int = 1
    recompute: frozenset[int] = frozenset()
    fault: Fault | None = None

    @property
    def stages(self) -> tuple[int, ...]:
        """The stages that this worker holds."""
        return tuple(s for s, worker in enumerate(self.placement) if worker == self.worker)


class TrainStep(NamedTuple):
    """Forward and backward on rows `first` … `last` − 1 of the epoch's order. No update.

    `step` is the number of updates made once this one is: the first is 1. `epoch_index` (from 0) is what the random
    stream of the epoch's order is drawn from, and nothing else; no person reads it.
    """

    step: int
    epoch_index: int
    first: int
    last: int
    trace: bool = False


class Update(NamedTuple):
    """Apply update number `step`, from 1, with the gradients of the last step, multiplied by `scale`."""

    step: int
    learning_rate: float
    scale: float = 1.0


class Evaluate(NamedTuple):
    """Loss over all `total_rows` rows of a split, in chunks of `rows`. Changes nothing."""

    split: Split
    total_rows: int
    rows: int


class Gather(NamedTuple):
    """Bring every parameter or gradient of the worker to the coordinator."""

    part: Part


class Settle(NamedTuple):
    """Account for the time since the last step: the run has ended."""


Order = TrainStep | Update | Evaluate | Gather | Settle


class WorkerMemory(NamedTuple):
    """Bytes: `held` of weights, gradients and optimizer by stage; the process's peak resident set since its stages were
    built, and the part of it that is the job's: all but what the process had before. `job` is that part at present."""

    held: Mapping[int, tuple[int, int, int]]
    peak_resident: int
    peak_job: int
    job: int = 0


class StepReport(NamedTuple):
    """One worker's account of one step.

    `loss_total` and `correct` come from the worker that holds the last stage. `account` has where its time went since
    its report of the step before: its updates, evaluations and waiting for orders are in it too. `sent` has messages
    and bytes by receiving worker, in the same time. `saved_bytes` is the peak of kept activations by stage. `timeline`
    (actions with start and end on the host's monotonic clock, in seconds) and `memory` are there when the step was
    traced.
    """

    step: int
    rows: int
    loss_total: float | None
    correct: int | None
    squared_norms: Mapping[str, float]
    account: Account
    sent: Mapping[int, tuple[int, int]]
    saved_bytes: Mapping[int, int]
    timeline: tuple[tuple[Action, float, float], ...] = ()
    memory: WorkerMemory | None = None


class Updated(NamedTuple):
    """The update was applied. Its time is in the account of the next step."""


class Settled(NamedTuple):
    """`account` and `sent` as in a StepReport, of what followed the last step."""

    account: Account
    sent: Mapping[int, tuple[int, int]]


class EvaluateReport(NamedTuple):
    """Loss summed over the split's rows; only from the worker that holds the last stage."""

    rows: int
    loss_total: float
    correct: int | None


Report = StepReport | Updated | Settled | EvaluateReport | Mapping[str, Array]


def when(step: int | None, *, evaluating: bool) -> str:
    """` of step 7`, ` of the evaluation after step 7`; empty where there was neither."""
    if step is None:
        return ""
    return f" of the evaluation after step {step}" if evaluating else f" of step {step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a worker stopped. `kind`: `raised`, `non_finite`, `timeout` and `closed` (mostly echoes of another's).
    `step` is the one under way, from 1; with `evaluating` the one before the evaluation that was under way."""

    kind: Literal["raised", "non_finite", "timeout", "closed"]
    worker: int
    step: int | None
    action: Action | None
    message: str
    traceback: str = ""
    host: str = ""
    evaluating: bool = False

    @property
    def when(self) -> str:
        """See the function."""
        return when(self.step, evaluating=self.evaluating)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The reports of a list of orders; cut short by `failure`."""

    reports: tuple[Report, ...] = ()
    failure: Failure | None = None
