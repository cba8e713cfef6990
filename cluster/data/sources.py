"""Reads a job's data, checks it against the model, and splits it into training and validation rows.

    data = load_data(spec)                       # both sets, as the job file says
    test = load_arrays(spec, "held_out.npz")     # another source for the same model: `evaluate --data`
    x = load_inputs(spec, "new.npz")             # inputs alone: `predict --input`

Sources are `digits`, `diabetes`, text (see `cluster.data.text`), and files: .npz (arrays x and y), .csv and .parquet
(named columns; `data.target` names the columns to predict, by default the last one; all others are inputs). A file is a
local path or a URL. `rules` limit which sources are allowed.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.data.checks import fitting_inputs, fitting_targets, require_counted
from cluster.data.files import AnyArray, Arrays, Table, read_source
from cluster.data.rules import SourceRules
from cluster.data.tables import arrays_of, require_columns, split_columns
from cluster.data.text import Vocabulary, load_text
from cluster.data.token_files import require_below
from coordinator.job.source_names import is_text
from coordinator.job.spec import JobSpec
from stages.data import Dataset, train_validation_split
from stages.errors import InvalidData


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class JobData:
    """The rows of a job. `columns` name a table's inputs in their order; None for arrays without names.

    `spec` is the job with all values that follow from its data; `vocabulary` has the meaning of tokens, for text.
    """

    spec: JobSpec
    train: Dataset
    validation: Dataset
    columns: tuple[str, ...] | None = None
    vocabulary: Vocabulary | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return sum(array.nbytes for part in (self.train, self.validation) for array in (part.x, part.y))

    @property
    def order_bytes(self) -> int:
        """Bytes of the order of an epoch's rows, which a worker draws when the epoch begins."""
        return 8 * len(self.train)

    def fingerprint(self) -> int:
        """Return a CRC-32 of both sets, by which a worker that reads the data itself detects that it has changed."""
        both = f"{self.train.fingerprint()} {self.validation.fingerprint()} {self.columns}"
        return zlib.crc32(both.encode("utf-8", "surrogatepass"))


def load_data(spec: JobSpec, rules: SourceRules | None = None) -> JobData:
    """Read `data.source`. Validation rows come from `data.validation` if that is a source; else it is the share of rows
    to split off.

    Raises InvalidData with one line that names the source, the place in it and what to do.
    """
    found = _load_data(spec, rules)
    model = found.spec.model_spec()
    require_counted(found.train.y, model, spec.data.source, "training")
    require_counted(found.validation.y, model, spec.data.validation_source, "validation")
    return found


def _load_data(spec: JobSpec, rules: SourceRules | None) -> JobData:
    data = spec.data
    if is_text(data.source):
        train, held_out, vocabulary = load_text(spec, rules)
        resolved = spec.resolved(train.x.block, vocabulary.size)
        _require_vocabulary(resolved, vocabulary, train, held_out)
        return JobData(spec=resolved, train=train, validation=held_out, vocabulary=vocabulary)
    everything, columns = _load(spec, data.source, None, rules)
    if isinstance(data.validation, str):
        validation, _ = _load(spec, data.validation, columns, rules)
        return JobData(spec=spec, train=everything, validation=validation, columns=columns)
    train_rows, validation_rows = train_validation_split(len(everything), data.validation, spec.seed)
    if not len(train_rows) or not len(validation_rows):
        kind = "validation" if len(train_rows) else "training"
        raise InvalidData(
            f"{data.source}: a share of {data.validation} of its {len(everything)} rows leaves none for {kind}; "
            "change data.validation or give a second source"
        )
    train, held_out = everything.take(train_rows), everything.take(validation_rows)
    return JobData(spec=spec, train=train, validation=held_out, columns=columns)


def _require_vocabulary(spec: JobSpec, vocabulary: Vocabulary, train: Dataset, held_out: Dataset) -> None:
    """Raise InvalidData if the model does not take tokens, has fewer tokens than the data, or other rows."""
    model, source = spec.model_spec(), spec.data.source
    if not model.vocabulary:
        raise InvalidData(
            f"{source}: is text, but the model takes numbers: leave model.input out, or give a vocabulary"
        )
    smallest = min(model.vocabulary, model.network.output.features)
    if vocabulary.size > smallest:
        if vocabulary.kind == "numbers":
            require_below(train.x.tokens, smallest, source)
            second = isinstance(spec.data.validation, str)
            place = (spec.data.validation, 0) if second else (source, len(train.x.tokens))
            require_below(held_out.x.tokens, smallest, str(place[0]), before=place[1])
        raise InvalidData(
            f"{source}: has {vocabulary.size} tokens, but the model knows {smallest}; leave model.input and vocabulary "
            "out, and write units: classes"
        )
    if model.input.positions != spec.data.block:
        raise InvalidData(
            f"{source}: data.block is {spec.data.block}, but the model has {model.input.positions} positions "
            "(model.input); change one, or leave model.input out"
        )


def load_arrays(spec: JobSpec, source: str, columns: Sequence[str] | None = None) -> Dataset:
    """Return the inputs and targets of any source, checked against the job's model.

    `columns` are the input columns that the model was trained on (`JobData.columns`); a table may then have them in
    another order and among other columns. Raises InvalidData.
    """
    return _load(spec, source, columns)[0]


def load_inputs(spec: JobSpec, source: str, columns: Sequence[str] | None = None) -> AnyArray:
    """Return the inputs (rows, features) of any source, checked against the job's model. It needs no targets.

    Without `columns` (see `load_arrays`) every column of a table is an input except those of `data.target`.
    Raises InvalidData.
    """
    content = read_source(source)
    if isinstance(content, Arrays):
        return fitting_inputs(content.x, spec.model_spec(), source)
    if columns is None:
        columns = [name for name in content.columns if name not in (spec.data.target or ())]
    require_columns(content, columns, source)
    return fitting_inputs(arrays_of(content, columns, (), source).x, spec.model_spec(), source, columns)


def _load(
    spec: JobSpec, source: str, columns: Sequence[str] | None, rules: SourceRules | None = None
) -> tuple[Dataset, tuple[str, ...] | None]:
    content, model = read_source(source, rules), spec.model_spec()
    inputs: Sequence[str] | None = None
    targets: Sequence[str] | None = None
    if isinstance(content, Table):
        inputs, targets = split_columns(content, spec.data.target, source)
        if columns is not None:
            require_columns(content, columns, source)
            inputs = columns
        content = arrays_of(content, inputs, targets, source)
    if content.y is None:
        raise InvalidData(f"{source}: has no array y; write it with numpy.savez(file, x=x, y=y)")
    x = fitting_inputs(content.x, model, source, inputs)
    y = fitting_targets(content.y, len(x), model, source, targets)
    return Dataset(x=x, y=y), None if inputs is None else tuple(inputs)
