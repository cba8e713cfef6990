"""The rows of metrics: one for each optimizer step, one for each evaluation. They are also the table of figures.

A field of a row is the one place that describes a figure: its meaning, its unit, the series of pages and /api, the name
at trackers, the metric. The SDK's types and tables, messages, `/metrics` and the documents' tables follow from it (see
CONTRIBUTING.md, "a figure").

[Note: one count of steps] A step's number is the number of updates made when it is done: the first is step 1, and an
evaluation has the number of the step whose weights it evaluated. Epochs count from 1, too. The numbers are the same in
files, messages, traces and texts; a number that counts from 0 inside the code is called an index (decision 0014).

Nothing here imports NumPy, so that clients, which make no arrays, import quickly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from coordinator.timing.epoch_means import EpochMeans, loss_per_row

if TYPE_CHECKING:
    from coordinator.timing.accounts import AccountsLine
    from stages.orders import StepReport
    from stages.quality import Quality


class Metric(NamedTuple):
    """The gauge that shows a figure. `kind` is its label of that name, if other figures share the gauge."""

    name: str
    help: str
    kind: str | None = None


class Shown(NamedTuple):
    """The description of a figure in the row's field. `series` is its name on pages, in /api and in JobFigures,
    `tracker` its name at trackers; an empty name means that it is not shown there."""

    help: str
    unit: str = ""
    series: str = ""
    tracker: str = ""
    metric: Metric | None = None


class Figure(NamedTuple):
    """A row of the table of figures. `name` is the field of StepRow or EvalRow, `value` reads the figure from a row."""

    name: str
    shown: Shown
    value: Callable[[Any], float | None]


def shown(
    help: str, unit: str = "", *, series: str = "", tracker: str = "", metric: Metric | None = None
) -> dict[str, Shown]:
    """Return the metadata of a field."""
    return {"shown": Shown(help, unit, series, tracker, metric)}


_LOSS = Metric(
    "pipetrain_loss",
    "Mean loss over the rows of the present epoch so far (kind train), of the last evaluation (validation).",
)
_ACCURACY = Metric(
    "pipetrain_accuracy_ratio",
    "Share of rows classified right in the present epoch so far (kind train), in the last evaluation (validation).",
)
_PERPLEXITY = Metric("pipetrain_validation_perplexity", "Perplexity of the last evaluation; only for jobs on text.")
_BITS = Metric(
    "pipetrain_validation_bits_per_byte",
    "Bits that the network needs for a byte of the validation text, in the last evaluation.",
)
_NORM = Metric("pipetrain_gradient_norm", "Norm of the gradients of all stages in the last step, before clipping.")
_RATE = Metric("pipetrain_learning_rate", "Learning rate of the last step.")
_PREDICTED = Metric(
    "pipetrain_bubble_predicted_ratio",
    "Share of time that workers would idle through the schedule alone, with the measured times of its actions.",
)


@dataclass(frozen=True, slots=True)
class StepRow:
    """One optimizer step of the whole pipeline."""

    step: int = field(metadata=shown("number of updates made so far, this one included: the first step is 1"))
    epoch: int = field(metadata=shown("the pass over the training rows that it belongs to, from 1"))
    samples: int = field(metadata=shown("rows of the batch", "rows"))
    loss: float = field(
        metadata=shown(
            "mean over the batch, as the job's loss defines it, before the update; a sum if `summed`",
            series="loss",
            tracker="train/loss",
            metric=_LOSS._replace(kind="train"),
        )
    )
    seconds: float = field(
        metadata=shown(
            "time of the slowest worker since the end of the step before, without an evaluation between them",
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
        metadata=shown(
            "learning rate of the update", series="learning_rate", tracker="train/learning_rate", metric=_RATE
        )
    )
    bubble: float = field(
        metadata=shown(
            "share of time in which workers waited for arrays or were held up while sending",
            "0 to 1",
            series="bubble",
            tracker="pipeline/bubble",
        )
    )
    accuracy: float | None = field(
        metadata=shown(
            "share of the batch's rows (of text: tokens) classified right; None if the job is no classifier",
            "0 to 1",
            series="accuracy",
            tracker="train/accuracy",
            metric=_ACCURACY._replace(kind="train"),
        )
    )
    bubble_predicted: float | None = field(
        default=None,
        metadata=shown(
            "share of time that workers would idle through the schedule alone, with lately measured times; None "
            "before these are known, and for a batch of fewer micro-batches",
            "0 to 1",
            series="bubble_predicted",
            tracker="pipeline/bubble_predicted",
            metric=_PREDICTED,
        ),
    )
    attempt: int = field(
        default=1,
        metadata=shown("the attempt that made the step, from 1: a job that was started again makes its steps again"),
    )
    summed: bool = field(
        default=False,
        metadata=shown("whether `loss` is the sum over the batch's rows (`sum_of_squares`) and not a mean"),
    )
    steps: int | None = field(
        default=None,
        metadata=shown(
            "number of steps that the row joins, if more than one (`training.log_every`): `samples` and `seconds` are "
            "their sums, `loss`, `accuracy` and `bubble` their means, and all else is the last step's"
        ),
    )
    counted: int | None = field(
        default=None,
        metadata=shown(
            "number of targets that count in `loss` and `accuracy`, if the job's loss ignores some; else None"
        ),
    )
    memory_most: float | None = field(
        default=None,
        metadata=shown(
            "memory that the job holds in the worker that holds most; only in sampled steps, about one a second",
            "bytes",
            series="memory_most",
        ),
    )
    memory_mean: float | None = field(
        default=None,
        metadata=shown(
            "memory that the job holds in a worker on average; in the same steps", "bytes", series="memory_mean"
        ),
    )

    @property
    def loss_per_row(self) -> float:
        """The loss as a mean over rows, even if `loss` is a sum, so that batches can be compared."""
        return loss_per_row(self.loss, self.samples, summed=self.summed)

    def as_dict(self) -> dict[str, Any]:
        """The row of metrics.jsonl."""
        return _as_dict("step", self, StepRow)


@dataclass(frozen=True, slots=True)
class EvalRow:
    """An evaluation of the validation rows."""

    step: int = field(metadata=shown("number of updates made so far: the evaluated weights are those after this step"))
    epoch: int = field(metadata=shown("the epoch that this step belongs to, from 1"))
    loss: float = field(
        metadata=shown(
            "mean over all validation rows, as the job's loss defines it; a sum if `summed`",
            series="validation_loss",
            tracker="validation/loss",
            metric=_LOSS._replace(kind="validation"),
        )
    )
    accuracy: float | None = field(
        metadata=shown(
            "share of the validation rows (of text: tokens) classified right; None if the job is no classifier",
            "0 to 1",
            series="validation_accuracy",
            tracker="validation/accuracy",
            metric=_ACCURACY._replace(kind="validation"),
        )
    )
    samples: int = field(metadata=shown("validation rows", "rows"))
    perplexity: float | None = field(
        default=None,
        metadata=shown(
            "e to the power of `loss`, the mean over tokens; None if the data is not text, or with `label_smoothing`, "
            "since the loss is then not the logarithm of a probability",
            series="validation_perplexity",
            tracker="validation/perplexity",
            metric=_PERPLEXITY,
        ),
    )
    bits_per_byte: float | None = field(
        default=None,
        metadata=shown(
            "the loss of all tokens in bits, divided by the bytes of their text, so that it does not depend on the "
            "kind of tokens; None if `perplexity` is None, if the loss ignores tokens, and for files of token numbers, "
            "whose text is not known",
            "bits",
            series="validation_bits_per_byte",
            tracker="validation/bits_per_byte",
            metric=_BITS,
        ),
    )
    attempt: int = field(default=1, metadata=shown("as in StepRow"))
    summed: bool = field(default=False, metadata=shown("as in StepRow"))
    counted: int | None = field(default=None, metadata=shown("as in StepRow"))

    @property
    def loss_per_row(self) -> float:
        """See StepRow."""
        return loss_per_row(self.loss, self.samples, summed=self.summed)

    def as_dict(self) -> dict[str, Any]:
        """The row of metrics.jsonl."""
        return _as_dict("eval", self, EvalRow)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedStep(StepRow):
    """A step that was made in this process, with data that is not part of a row.

    `reports` are the workers' reports; `accounts_then` has the accounts when the step had ended. `ends_submission`
    marks the last of several steps that were submitted together: the next row comes only after a while.
    """

    reports: tuple[StepReport, ...] = field(default=(), repr=False)
    accounts_then: AccountsLine | None = field(default=None, repr=False)
    ends_submission: bool = field(default=False, repr=False)

    @property
    def accounts(self) -> dict[str, Any] | None:
        """The line of accounts.jsonl."""
        return None if self.accounts_then is None else self.accounts_then.as_dict()


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedEvaluation(EvalRow):
    """An evaluation that was made in this process. `quality` has the counts by class, or the sums of differences."""

    quality: Quality | None = field(default=None, repr=False, compare=False)


Row = StepRow | EvalRow


def take_row(means: EpochMeans, row: StepRow) -> None:
    """Take a step into the means that pages and commands show."""
    means.take(
        epoch=row.epoch,
        samples=row.samples,
        loss=row.loss,
        accuracy=row.accuracy,
        summed=row.summed,
        counted=row.counted,
    )


def _as_dict(kind: str, row: Row, columns: type[Row]) -> dict[str, Any]:
    """Leave out values that are None, `attempt`, which follows from the file's name, and `summed` if it is False."""
    values = {name: getattr(row, name) for name in _COLUMNS[columns]}
    values["summed"] = row.summed or None
    return {"kind": kind, **{name: value for name, value in values.items() if value is not None}}


_COLUMNS: dict[type[Row], tuple[str, ...]] = {
    row: tuple(one.name for one in fields(row) if one.name != "attempt") for row in (StepRow, EvalRow)
}


def _step_seconds(row: StepRow) -> float:
    return row.seconds / (row.steps or 1)


def _speed(row: StepRow) -> float | None:
    return row.samples / row.seconds if row.seconds else None


def _figures(kind: type[Row]) -> tuple[Figure, ...]:
    values = {"seconds": _step_seconds} if kind is StepRow else {}
    return tuple(
        Figure(one.name, one.metadata["shown"], values.get(one.name, attrgetter(one.name))) for one in fields(kind)
    )


STEP_FIGURES: tuple[Figure, ...] = (
    *_figures(StepRow),
    Figure(
        "samples_per_second",
        Shown("rows trained on", "rows a second", series="samples_per_second", tracker="speed/samples_per_second"),
        _speed,
    ),
)
"""The table of a step's figures: its fields, and the figures computed from them."""
EVAL_FIGURES: tuple[Figure, ...] = _figures(EvalRow)
"""The table of an evaluation's figures."""
SERIES: tuple[str, ...] = tuple(one.shown.series for one in (*STEP_FIGURES, *EVAL_FIGURES) if one.shown.series)
"""Names of all series."""
