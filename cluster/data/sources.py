"""Reads a job's data, checks it against the model, and splits it into training and validation rows.

    data = load_data(spec)                       # both sets, as the job file says
    test = load_arrays(spec, "held_out.npz")     # another source for the same model: `evaluate --data`
    rows = load_questions(spec, "new.npz", None)  # inputs alone: `predict --input`, see `cluster.data.questions`

Sources are `digits`, `diabetes`, text (see `cluster.data.texts.loading`), and files: .npz (arrays x and y), .csv and
.parquet (named columns, see `cluster.data.table_data`). A file is a local path or a URL. `rules` limit which are
allowed.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np

from cluster.data.checks import WHOLE, Checking, fitting_inputs, fitting_targets, require_counted
from cluster.data.files import Arrays, Table, read_source
from cluster.data.formats.npz import offer
from cluster.data.image_data import fitted_to_images, image_classes, with_classes
from cluster.data.rules import SourceRules
from cluster.data.saying import what_arrays_hold, what_is_read, what_text_holds
from cluster.data.splitting import split_rows
from cluster.data.table_data import rows_by_rules, training_rows
from cluster.data.tables.preprocessing import Preprocessing
from cluster.data.temporary import disk_line
from cluster.data.texts.loading import Vocabulary, load_text
from cluster.data.texts.token_files import require_below
from coordinator.job.spec import JobSpec
from stages.data import Dataset, RowNumbers
from stages.errors import InvalidData
from stages.file_numbers import FileNumbers, FileRows


class DataSizes(TypedDict):
    """The bytes of data in a worker that holds the first or last stage, and the number of validation rows."""

    data_bytes: int
    validation_rows: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class JobData:
    """The rows of a job. `preprocessing` says how a table's columns became numbers; None for arrays without names.

    `spec` is the job with all values that follow from its data; `vocabulary` has the meaning of tokens, for text.
    `said` are lines for the user about what was read; `dropped` is about rows with empty cells that were left
    out; empty if there are none.
    """

    spec: JobSpec
    train: Dataset
    validation: Dataset
    preprocessing: Preprocessing | None = None
    vocabulary: Vocabulary | None = None
    said: tuple[str, ...] = ()
    dropped: str = ""

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays in memory. Rows that stay in their file take none."""
        return self.train.nbytes + self.validation.nbytes

    @property
    def reading_bytes(self) -> int:
        """Bytes that a worker takes to read rows: for the order of an epoch's rows, which it draws when the epoch
        begins, and, if rows stay in their file, for those of one part of an evaluation."""
        return 8 * len(self.train) + self.validation.read_bytes(self.spec.training.evaluate_batch_size)

    @property
    def for_plan(self) -> DataSizes:
        """What a plan must know of the data."""
        return {"data_bytes": self.nbytes + self.reading_bytes, "validation_rows": len(self.validation)}

    @property
    def checked(self) -> dict[str, int]:
        """The checksums of rows that stay in their file, for `Checking.known`."""
        parts = (part for rows in (self.train, self.validation) for part in (rows.x, rows.y))
        return {part.check: part.crc for part in parts if isinstance(part, FileRows) and part.check is not None}

    def fingerprint(self) -> int:
        """Return a CRC-32 of both sets and of the rules, by which a worker that reads the data itself detects that it
        has changed."""
        rules = None if self.preprocessing is None else json.dumps(self.preprocessing.document())
        both = f"{self.train.fingerprint()} {self.validation.fingerprint()} {rules}"
        return zlib.crc32(both.encode("utf-8", "surrogatepass"))


def load_data(spec: JobSpec, rules: SourceRules | None = None, checking: Checking = WHOLE) -> JobData:
    """Read `data.source`. Validation rows come from `data.validation` if that is a source; else they are split off.

    If `checking` is not of the whole, as for a plan, rows that stay on disk are neither checked to the end nor, if they
    are of a table, readable. Raises InvalidData with one line that names the source, the place in it and what to do.
    """
    found = _load_data(spec, rules, checking)
    if (arrow := sys.modules.get("pyarrow")) is not None:
        arrow.default_memory_pool().release_unused()  # of columns, which it keeps for the next ones
    model = found.spec.model_spec()
    if checking.whole or not isinstance(found.train.y, FileRows):
        require_counted(found.train.y, model, spec.data.source, "training")
        if len(found.validation):
            require_counted(found.validation.y, model, spec.data.validation_source, "validation")
    return replace(found, said=(_main_line(found), *found.said))


def _main_line(data: JobData) -> str:
    if data.preprocessing is not None and data.preprocessing.inputs:
        return what_is_read(data.preprocessing, len(data.train), len(data.validation), data.dropped)
    if data.vocabulary is not None:
        return what_text_holds(data.train, data.validation, data.vocabulary)
    classes = None if data.preprocessing is None else data.preprocessing.target.classes
    return what_arrays_hold(data.train, data.validation, classes)


def _load_data(spec: JobSpec, rules: SourceRules | None, checking: Checking) -> JobData:
    data = spec.data
    if data.is_text:
        train, held_out, vocabulary = load_text(spec, rules)
        resolved = spec.resolved(train.x.block, vocabulary.size)
        _require_vocabulary(resolved, vocabulary, train, held_out)
        tokens = train.x.tokens
        said = (disk_line("its tokens", tokens),) if isinstance(tokens, FileNumbers) and tokens.file.private else ()
        return JobData(spec=resolved, train=train, validation=held_out, vocabulary=vocabulary, said=said)
    content = read_source(data.source, rules, data)
    if isinstance(content, Table):
        return _load_table(spec, content, rules, for_plan=not checking.whole)
    named = None
    if content.classes is not None:
        spec, named = fitted_to_images(spec, content, data.source), image_classes(content)
    everything = _fitting(spec, content, data.source, checking)
    if isinstance(data.validation, str):
        second = with_classes(_arrays(spec, data.validation, rules), named, data.validation)
        validation = _fitting(spec, second, data.validation, checking)
        return JobData(spec=spec, train=everything, validation=validation, preprocessing=named, said=content.notes)
    if not data.validation:
        train, validation = everything, everything.take(np.arange(0))
    else:
        train_rows, validation_rows = _split_arrays(spec, everything, content.classes)
        train, validation = everything.take(train_rows), everything.take(validation_rows)
    return JobData(spec=spec, train=train, validation=validation, preprocessing=named, said=content.notes)


def _split_arrays(spec: JobSpec, everything: Dataset, images: tuple[str, ...] | None) -> tuple[RowNumbers, RowNumbers]:
    """Return the rows of arrays for training and for validation; stratified only if the job says so, or for images of
    the classes `images`."""
    data, classes = spec.data, None
    if images is not None:
        return split_rows(data, len(everything), spec.seed, classes=everything.y, names=images, stratify=True)
    names: tuple[str, ...] = ()
    if data.stratified and data.validation and spec.model_spec().loss_function.takes_labels and everything.y.ndim == 1:
        found, classes = np.unique(everything.y, return_inverse=True)
        names = tuple(map(str, found.tolist()))
    return split_rows(data, len(everything), spec.seed, classes=classes, names=names)


def _load_table(spec: JobSpec, table: Table, rules: SourceRules | None, *, for_plan: bool) -> JobData:
    """Return the data of a job on a table: fit the rules of preprocessing to its training rows, and apply them."""
    notes = table.notes
    read = training_rows(spec, table, for_plan=for_plan)
    validation, said = read.validation, read.said
    if isinstance(second := spec.data.validation, str):
        content = read_source(second, rules, spec.data)
        if isinstance(content, Arrays):
            validation = _fitting(read.spec, content, second)
        else:
            other = rows_by_rules(read.spec, content, read.rules, second, targets=True, for_plan=for_plan)
            assert other.y is not None, "targets were asked for"
            validation = Dataset(x=other.x, y=other.y)
            said = (*said, *(f"validation: {line}" for line in (*content.notes, *other.said)))
    return JobData(
        spec=read.spec,
        train=read.train,
        validation=validation,
        preprocessing=read.rules,
        said=(*notes, *said),
        dropped=read.dropped,
    )


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
    spec: JobSpec,
    source: str,
    preprocessing: Preprocessing | None = None,
    rules: SourceRules | None = None,
    notify: Callable[[str], object] = lambda line: None,
) -> Dataset:
    """Return the inputs and targets of any source, checked against the job's model.

    `preprocessing` are the rules that the model was trained with (`JobData.preprocessing`); a table may then have its
    columns in another order and among other columns. `notify` is called with lines for the user, such as how many rows
    were dropped. Raises InvalidData.
    """
    content = read_source(source, rules, spec.data)
    if isinstance(content, Arrays):
        return _fitting(spec, with_classes(content, preprocessing, source), source)
    if preprocessing is None:
        raise InvalidData(f"{source}: has columns, but the model was trained on arrays; give an .npz with x and y")
    rows = rows_by_rules(spec, content, preprocessing, source, targets=True)
    for line in (*content.notes, *rows.said):
        notify(line)
    assert rows.y is not None, "targets were asked for"
    return Dataset(x=rows.x, y=rows.y)


def _arrays(spec: JobSpec, source: str, rules: SourceRules | None) -> Arrays:
    content = read_source(source, rules, spec.data)
    if isinstance(content, Table):
        raise InvalidData(f"{source}: has columns, but data.source has arrays; give both in the same form")
    return content


def _fitting(spec: JobSpec, content: Arrays, source: str, checking: Checking = WHOLE) -> Dataset:
    if content.y is None:
        if content.shape is not None:
            raise InvalidData(f"{source}: its images must be in folders of their classes, such as {source}cats/1.png")
        right = offer(content.names) if len(content.names) > 1 else "; write it with numpy.savez(file, x=x, y=y)"
        raise InvalidData(f"{source}: has no array y{right}")
    x = fitting_inputs(content.x, spec.model_spec(), source, checking=checking)
    y = fitting_targets(content.y, len(x), spec.model_spec(), source, None, checking=checking)
    return Dataset(x=x, y=y)
