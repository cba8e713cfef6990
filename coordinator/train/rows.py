"""The rows of metrics: one for each optimizer step, one for each evaluation. They are the table of figures, too.

A field of a row is the one place that describes a figure: its meaning, its unit, the series of pages and /api, the name
at trackers, the metric. The SDK's types and tables, messages, `/metrics` and the documents' tables follow from it (see
CONTRIBUTING.md, "a figure").

[Note: one count of steps] A step is numbered by the updates made once it is done: the first is step 1, and an
evaluation has the number of the step whose weights it looked at. Epochs count from 1, too. It is the same number in
files, messages, traces and texts; what counts from 0 inside is called an index (decision 0014).

Light on purpose: a client reads rows where no array is ever made, so nothing here imports NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from stages.orders import StepReport


class Metric(NamedTuple):
    """The gauge that shows a figure. `kind` is its label of that name, if other figures share the gauge."""

    name: str
    help: str
    kind: str | None = None


class Shown(NamedTuple):
    """What a row's field says of its figure. `series` names it on pages, in /api and in JobFigures, `tracker` at
    trackers; empty: not shown there."""

    help: str
    unit: str = ""
    series: str = ""
    tracker: str = ""
    metric: Metric | None = None


class Figure(NamedTuple):
    """A row of the table. `name` is the field of the row, `value` reads it from one."""

    name: str
    shown: Shown
    value: Callable[[Any], float | None]


def shown(
    help: str, unit: str = "", *, series: str = "", tracker: str = "", metric: Metric | None = None
) -> dict[str, Shown]:
    """The metadata of a field."""
    return {"shown": Shown(help, unit, series, tracker, metric)}


_LOSS = Metric("pipetrain_loss", "Loss of the last step (kind train), of the last evaluation (validation).")
_ACCURACY = Metric(
    "pipetrain_accuracy_ratio",
    "Share of rows classified right in the last step (kind train), in the last evaluation (validation).",
)
_NORM = Metric("pipetrain_gradient_norm", "Norm of the gradients of all stages in the last step, before clipping.")
_RATE = Metric("pipetrain_learning_rate", "Learning rate of the last step.")
_PREDICTED = Metric(
    "pipetrain_bubble_predicted_ratio",
    "What the schedule alone would idle, with the times of its actions as they were measured.",
)


@dataclass(frozen=True, slots=True)
class StepRow:
    """One optimizer step, as the whole pipeline saw it."""

    step: int = field(metadata=shown("updates made so far, this one included: the first step is 1"))
    epoch: int = field(metadata=shown("the pass over the training rows that it belongs to, from 1"))
    samples: int = field(metadata=shown("rows of the batch", "rows"))
    loss: float = field(
        metadata=shown(
            "mean over the batch, as the job's loss defines it, before the update",
            series="loss",
            tracker="train/loss",
            metric=_LOSS._replace(kind="train"),
        )
    )
    seconds: float = field(
        metadata=shown(
            "of the slowest worker, from the end of the step before, without an evaluation between them",
            "seconds",
            tracker="speed/step_seconds",
        )
    )
    grad_norm: float = field(
        metadata=shown(
            "norm of the gradients of all stages together, before clipping",
            series="grad_norm",
            tracker="train/grad_norm",
            metric=_NORM,
        )
    )
    learning_rate: float = field(
        metadata=shown("of the update", series="learning_rate", tracker="train/learning_rate", metric=_RATE)
    )
    bubble: float = field(
        metadata=shown(
            "share of their time in which workers waited for arrays or were held up sending",
            "0 to 1",
            series="bubble",
            tracker="pipeline/bubble",
        )
    )
    accuracy: float | None = field(
        metadata=shown(
            "share of the batch that is right; None if the job is no classifier",
            "0 to 1",
            series="accuracy",
            tracker="train/accuracy",
            metric=_ACCURACY._replace(kind="train"),
        )
    )
    bubble_predicted: float | None = field(
        default=None,
        metadata=shown(
            "what the schedule alone would idle with the times measured lately; None before that is known, and for a "
            "batch of fewer micro-batches",
            "0 to 1",
            series="bubble_predicted",
            tracker="pipeline/bubble_predicted",
            metric=_PREDICTED,
        ),
    )
    attempt: int = field(
        default=1,
        metadata=shown(
            "the life of the job's processes that made it, from 1: a job that was started again makes its steps again"
        ),
    )

    def as_dict(self) -> dict[str, Any]:
        """The row of metrics.jsonl."""
        return _as_dict("step", self, StepRow)


@dataclass(frozen=True, slots=True)
class EvalRow:
    """An evaluation of the validation rows."""

    step: int = field(metadata=shown("updates made so far; the weights are those after the step of this number"))
    epoch: int = field(metadata=shown("the one that this step belongs to, from 1"))
    loss: float = field(
        metadata=shown(
            "mean over all validation rows, as the job's loss defines it",
            series="validation_loss",
            tracker="validation/loss",
            metric=_LOSS._replace(kind="validation"),
        )
    )
    accuracy: float | None = field(
        metadata=shown(
            "share of the validation rows that is right; None if the job is no classifier",
            "0 to 1",
            series="validation_accuracy",
            tracker="validation/accuracy",
            metric=_ACCURACY._replace(kind="validation"),
        )
    )
    samples: int = field(metadata=shown("validation rows", "rows"))
    attempt: int = field(default=1, metadata=shown("as in StepRow"))

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


def _speed(row: StepRow) -> float | None:
    return row.samples / row.seconds if row.seconds else None


def _figures(kind: type[Row]) -> tuple[Figure, ...]:
    return tuple(Figure(one.name, one.metadata["shown"], attrgetter(one.name)) for one in fields(kind))


STEP_FIGURES: tuple[Figure, ...] = (
    *_figures(StepRow),
    Figure(
        "samples_per_second",
        Shown("rows trained on", "rows a second", series="samples_per_second", tracker="speed/samples_per_second"),
        _speed,
    ),
)
"""The table: what a step has, and what follows from that."""
EVAL_FIGURES: tuple[Figure, ...] = _figures(EvalRow)
"""The table: what an evaluation has."""
SERIES: tuple[str, ...] = tuple(one.shown.series for one in (*STEP_FIGURES, *EVAL_FIGURES) if one.shown.series)
"""Names of all series."""
