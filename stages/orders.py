"""The coordinator's orders to workers, and the workers' reports. Every worker gets the same orders in the same order.

Orders and reports are named tuples because hundreds of them a second are pickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from stages.actions import Action, Lane
from stages.arrays import Array
from stages.ledger import Account
from stages.living_units import DeadUnits
from stages.quality import Quality
from stages.snapshots import Written
from stages.spec import ModelSpec, OptimizerSpec

Split = Literal["train", "validation"]
Part = Literal["parameters", "gradients"]


FaultKind = Literal["kill", "stop", "slow", "partition", "oom", "corrupt", "disk-full", "raise", "nan", "block", "lose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault at a named point: before `action` of step `step` (from 1), the worker does `what`.

    `action` may also be `update`, `evaluation` or `checkpoint`, each of which follows the step. Without an action the
    point is the beginning of the step; without a step it is the next such point. A checkpoint is that of the step or,
    if it has none, the next one. A fault strikes once, in `times` processes of the worker, one after another; `id`
    names it.

    `kill` ends the process (SIGKILL), `stop` stops it (SIGSTOP). `partition` loses every array that the worker sends or
    is sent. `oom` allocates memory until there is none. `corrupt` flips a bit of the newest checkpoint. With
    `disk-full` the disk is full when the worker writes its next checkpoint. `slow` computes for `seconds` of CPU time,
    in `steps` steps from this one; without an action, before each of its actions.

    For tests only: `raise` raises an error; `block` stops the thread until another thread sets stages.faults.UNBLOCK;
    `nan` sets the stage's parameters to NaN; `lose` drops the next array that the worker sends.
    """

    what: FaultKind
    step: int | None = None
    action: str | None = None
    seconds: float = 0.0
    steps: int = 1
    times: int = 1
    id: str = ""

    @property
    def name(self) -> str:
        """Its id, or a name that is made of its point and kind."""
        return self.id or f"{self.step}-{self.action}-{self.what}"


Faults = Mapping[int, Fault | Sequence[Fault]]
"""The faults of a run, by worker."""


def faults_of(faults: Faults | None, worker: int) -> tuple[Fault, ...]:
    """Return the faults of one worker."""
    own = (faults or {}).get(worker, ())
    return (own,) if isinstance(own, Fault) else tuple(own)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """Everything that a worker needs to know. Stage s has the operations `bounds[s]` … `bounds[s + 1]` − 1 and is held
    by worker `placement[s]`. `lanes[m]` is this worker's lane in a step of m micro-batches. The stages in `recompute`
    run forward again before I."""

    worker: int
    model: ModelSpec
    optimizer: OptimizerSpec
    bounds: tuple[int, ...]
    placement: tuple[int, ...]
    lanes: Mapping[int, Lane]
    micro_batches: int
    weight_grad_group: int = 1
    recompute: frozenset[int] = frozenset()
    faults: tuple[Fault, ...] = ()

    @property
    def stages(self) -> tuple[int, ...]:
        """The stages that this worker holds."""
        return tuple(s for s, worker in enumerate(self.placement) if worker == self.worker)


class TrainStep(NamedTuple):
    """Forward and backward on rows `first` … `last` − 1 of the epoch's order. No update.

    `step` is the number of the update that belongs to it, from 1. `epoch_index` (from 0) only selects the random stream
    of the epoch's order; people are never shown it. If `look`, the worker looks for dead units.
    """

    step: int
    epoch_index: int
    first: int
    last: int
    trace: bool = False
    look: bool = False


class Update(NamedTuple):
    """Apply update number `step`, from 1, with the gradients of the last step, multiplied by `scale`."""

    step: int
    learning_rate: float
    scale: float = 1.0


class Evaluate(NamedTuple):
    """Compute the loss over all `total_rows` rows of a split, in chunks of `rows`. Changes no parameter."""

    split: Split
    total_rows: int
    rows: int


class Gather(NamedTuple):
    """Send every parameter or gradient of the worker to the coordinator."""

    part: Part


class Settle(NamedTuple):
    """Report the time since the last step, because the run has ended."""


class Save(NamedTuple):
    """Write the state after update number `step`: with `copy`, a copy of it in the background."""

    step: int
    copy: bool = True


class LookSaved(NamedTuple):
    """Report what became of the last Save; `wait`: until it is written."""

    wait: bool = False


Order = TrainStep | Update | Evaluate | Gather | Settle | Save | LookSaved


class WorkerMemory(NamedTuple):
    """A worker's memory in bytes. `held` has (weights, gradients, optimizer state) by stage. `peak_resident` is the
    peak resident set of the process since its measurement began; `peak_job` is the job's part of it, without the memory
    that the process had before the job; `job` is that part at present."""

    held: Mapping[int, tuple[int, int, int]]
    peak_resident: int
    peak_job: int
    job: int = 0


class StepReport(NamedTuple):
    """One worker's account of one step.

    Only the worker of the last stage gives `loss_total`, `divisor` (for the mean loss) and `correct`.
    `account` covers the time since the report of the step before, so it includes updates, evaluations and waiting for
    orders. `sent` has (messages, bytes) by receiving worker in the same time. `saved_bytes` is the peak of kept
    activations by stage. `timeline` (actions with start and end in seconds of the host's monotonic clock) and `memory`
    are given only if the step was traced, `dead` only if the order was to look.
    """

    step: int
    rows: int
    loss_total: float | None
    divisor: int | None
    correct: int | None
    squared_norms: Mapping[str, float]
    account: Account
    sent: Mapping[int, tuple[int, int]]
    saved_bytes: Mapping[int, int]
    timeline: tuple[tuple[Action, float, float], ...] = ()
    memory: WorkerMemory | None = None
    dead: tuple[DeadUnits, ...] = ()


class Updated(NamedTuple):
    """The update was applied. Its time is in the account of the next step."""


class Settled(NamedTuple):
    """`account` and `sent` as in a StepReport, for the time after the last step."""

    account: Account
    sent: Mapping[int, tuple[int, int]]


class EvaluateReport(NamedTuple):
    """The loss, summed over the split's rows, and its divisor for the mean. Meaningful only from the worker that
    holds the last stage. `quality`: None for text, and for very many outputs."""

    rows: int
    loss_total: float
    divisor: int
    correct: int | None
    quality: Quality | None = None


class Saving(NamedTuple):
    """The state was copied, or written if nothing had to be copied, in `seconds`."""

    seconds: float


class Saved(NamedTuple):
    """`outcome` of the last Save; None while it is written, and if it was reported before."""

    outcome: Written | None


Report = StepReport | Updated | Settled | EvaluateReport | Saving | Saved | Mapping[str, Array]


def when(step: int | None, *, evaluating: bool) -> str:
    """Return ` of step 7` or ` of the evaluation after step 7`; an empty text before the first step."""
    if step is None:
        return ""
    return f" of the evaluation after step {step}" if evaluating else f" of step {step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a worker stopped. `kind`: `raised`, `non_finite`, and `connection` (an exception of a connection), `timeout`
    and `closed`, which are mostly echoes of another worker's failure. `step` is the step in progress, from 1; if
    `evaluating`, the last step before the evaluation in progress."""

    kind: Literal["raised", "non_finite", "connection", "timeout", "closed"]
    worker: int
    step: int | None
    action: Action | None
    message: str
    traceback: str = ""
    host: str = ""
    evaluating: bool = False
    mistake: bool = False
    """Whether a user can correct it, so that another try is of no use."""

    @property
    def when(self) -> str:
        """The result of the function `when` for this failure."""
        return when(self.step, evaluating=self.evaluating)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The reports of a list of orders; if `failure` is set, only the reports before it."""

    reports: tuple[Report, ...] = ()
    failure: Failure | None = None
