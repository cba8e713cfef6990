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
from dataclasses import dataclass

import numpy as np

from cluster.data.applying import inputs_of, targets_of
from cluster.data.checks import fitting_inputs, fitting_targets, require_counted
from cluster.data.files import AnyArray, Arrays, Table, read_source
from cluster.data.fitting import fit
from cluster.data.preprocessing import Preprocessing
from cluster.data.roles import assign_roles
from cluster.data.rules import SourceRules
from cluster.data.text import Vocabulary, load_text
from cluster.data.token_files import require_below
from coordinator.job.data_section import DataSection
from coordinator.job.spec import JobSpec
from stages.data import Dataset, RowNumbers, train_validation_split
from stages.errors import InvalidData
from stages.losses import build_loss


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class JobData:
    """The rows of a job. `preprocessing` says how a table's columns became numbers; None for arrays without names.

    `spec` is the job with all values that follow from its data; `vocabulary` has the meaning of tokens, for text.
    `said` are lines for the user about what was read.
    """

    spec: JobSpec
    train: Dataset
    validation: Dataset
    preprocessing: Preprocessing | None = None
    vocabulary: Vocabulary | None = None
    said: tuple[str, ...] = ()

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
        columns = None if self.preprocessing is None else self.preprocessing.columns
        both = f"{self.train.fingerprint()} {self.validation.fingerprint()} {columns}"
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
    if data.is_text:
        train, held_out, vocabulary = load_text(spec, rules)
        resolved = spec.resolved(train.x.block, vocabulary.size)
        _require_vocabulary(resolved, vocabulary, train, held_out)
        return JobData(spec=resolved, train=train, validation=held_out, vocabulary=vocabulary)
    content = read_source(data.source, rules)
    if isinstance(content, Table):
        return load_table(spec, content, rules)
    everything = _fitting(spec, content, data.source)
    if isinstance(data.validation, str):
        validation = _fitting(spec, _arrays(data.validation, rules), data.validation)
        return JobData(spec=spec, train=everything, validation=validation)
    train_rows, validation_rows = split_rows(data, len(everything), spec.seed)
    return JobData(spec=spec, train=everything.take(train_rows), validation=everything.take(validation_rows))


def load_table(spec: JobSpec, table: Table, rules: SourceRules | None) -> JobData:
    """Return the data of a job on a table: fit the rules of preprocessing to its training rows, and apply them."""
    data, source = spec.data, spec.data.source
    roles = assign_roles(table, data, source)
    if isinstance(data.validation, str):
        train_rows, validation_rows = np.arange(table.n_rows), None
    else:
        train_rows, validation_rows = split_rows(data, table.n_rows, spec.seed)
    loss = build_loss(spec.model.loss.spec())
    units = spec.model_spec().network.output.features if spec.is_resolved else None
    fitted = fit(table, roles, data, train_rows, loss, units)
    classes = None if fitted.target.classes is None else len(fitted.target.classes)
    spec = spec.fitted(len(fitted.features), classes, roles.target)
    everything = _table_rows(spec, table, fitted, source)
    if validation_rows is None:
        train, validation = everything, load_arrays(spec, str(data.validation), fitted, rules)
    else:
        train, validation = everything.take(train_rows), everything.take(validation_rows)
    said = (what_is_read(fitted, len(train), len(validation)), *table.notes)
    return JobData(spec=spec, train=train, validation=validation, preprocessing=fitted, said=said)


def what_is_read(rules: Preprocessing, train: int, validation: int) -> str:
    """Return a line about a table's columns and rows: "inputs (3): a, b, c · target: y (classes: no, yes) · …"."""
    target = ", ".join(rules.target.names)
    kind = "numbers" if rules.target.classes is None else f"classes: {', '.join(rules.target.classes)}"
    inputs = f"inputs ({len(rules.columns)}): {', '.join(rules.columns)}"
    return f"{inputs} · target: {target} ({kind}) · {train:,} rows train, {validation:,} validation"


def split_rows(data: DataSection, n_rows: int, seed: int) -> tuple[RowNumbers, RowNumbers]:
    """Return the numbers of training and validation rows. Raises InvalidData if one part would be empty."""
    assert not isinstance(data.validation, str), "a second source splits nothing"
    train, validation = train_validation_split(n_rows, data.validation, seed)
    if not len(train) or not len(validation):
        kind = "validation" if len(train) else "training"
        raise InvalidData(
            f"{data.source}: a share of {data.validation} of its {n_rows} rows leaves none for {kind}; "
            "change data.validation or give a second source"
        )
    return train, validation


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


def load_arrays(
    spec: JobSpec, source: str, preprocessing: Preprocessing | None = None, rules: SourceRules | None = None
) -> Dataset:
    """Return the inputs and targets of any source, checked against the job's model.

    `preprocessing` are the rules that the model was trained with (`JobData.preprocessing`); a table may then have its
    columns in another order and among other columns. Raises InvalidData.
    """
    content = read_source(source, rules)
    if isinstance(content, Arrays):
        return _fitting(spec, content, source)
    if preprocessing is None:
        raise InvalidData(f"{source}: has columns, but the model was trained on arrays; give an .npz with x and y")
    return _table_rows(spec, content, preprocessing, source)


def load_inputs(spec: JobSpec, source: str, preprocessing: Preprocessing | None = None) -> AnyArray:
    """Return the inputs (rows, features) of any source, checked against the job's model. It needs no targets.

    For `preprocessing` see `load_arrays`. Raises InvalidData.
    """
    content = read_source(source)
    if isinstance(content, Arrays):
        return fitting_inputs(content.x, spec.model_spec(), source)
    if preprocessing is None:
        raise InvalidData(f"{source}: has columns, but the model was trained on arrays; give an .npz with x")
    x = inputs_of(content, preprocessing, spec.precision, source)
    return fitting_inputs(x, spec.model_spec(), source, preprocessing.features)


def _arrays(source: str, rules: SourceRules | None) -> Arrays:
    content = read_source(source, rules)
    if isinstance(content, Table):
        raise InvalidData(f"{source}: has columns, but data.source has arrays; give both in the same form")
    return content


def _fitting(spec: JobSpec, content: Arrays, source: str) -> Dataset:
    if content.y is None:
        raise InvalidData(f"{source}: has no array y; write it with numpy.savez(file, x=x, y=y)")
    x = fitting_inputs(content.x, spec.model_spec(), source)
    return Dataset(x=x, y=fitting_targets(content.y, len(x), spec.model_spec(), source, None))


def _table_rows(spec: JobSpec, table: Table, preprocessing: Preprocessing, source: str) -> Dataset:
    model = spec.model_spec()
    x = fitting_inputs(inputs_of(table, preprocessing, spec.precision, source), model, source, preprocessing.features)
    y = targets_of(table, preprocessing, spec.precision, source)
    return Dataset(x=x, y=fitting_targets(y, len(x), model, source, preprocessing.target.names))
