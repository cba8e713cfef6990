"""Makes the rows of a table into numbers: fits the rules to a training file, and applies them to any file.

read = training_rows(spec, table)            # spec, both sets of rows, the rules, and lines for the user
rows = rows_by_rules(spec, table, rules, source, targets=True)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.data.checks import fitting_inputs, fitting_targets
from cluster.data.files import AnyArray, Table
from cluster.data.saying import features_problem, filled_line, left_out_line
from cluster.data.splitting import split_rows
from cluster.data.tables.applying import input_blocks, inputs_of, labels_of, numbers_of, unknown_categories
from cluster.data.tables.cell_checks import check_targets, check_tokens
from cluster.data.tables.cells import CategoryCells, Cells, Mask
from cluster.data.tables.classes import classes_of
from cluster.data.tables.fitting import fit_inputs, fit_target
from cluster.data.tables.gaps import kept_rows
from cluster.data.tables.moments import ChosenRows
from cluster.data.tables.preprocessing import InputRule, Preprocessing, TargetRule
from cluster.data.tables.problems import Problems
from cluster.data.tables.reading import cells_by_rules, training_cells
from cluster.data.tables.roles import Roles, assign_roles
from cluster.data.tables.stored_tables import stored_line, stored_rows
from cluster.data.temporary import is_large
from coordinator.job.spec import JobSpec
from coordinator.texts import some
from stages.data import Dataset, RowNumbers
from stages.errors import InvalidData
from stages.file_numbers import FileRows
from stages.losses import Loss, build_loss


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FittedTable:
    """A training file's rows. `dropped` says which rows were left out, `said` are more lines for the user."""

    spec: JobSpec
    train: Dataset
    validation: Dataset
    rules: Preprocessing
    dropped: str
    said: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TableRows:
    """The rows of another file. x: (rows, features); y: None if the targets were not asked for. `kept`: the numbers of
    these rows in the file, ascending; rows with empty cells may be left out. `said`: lines for the user about that, and
    about values that no training row has."""

    x: AnyArray | FileRows
    y: AnyArray | None
    kept: RowNumbers
    said: tuple[str, ...]


def training_rows(spec: JobSpec, table: Table, *, for_plan: bool = False) -> FittedTable:
    """Return the training and validation rows of a table, and the rules that were fitted to the training rows.

    If `data.validation` is a second source, all rows are for training, and `validation` has none. Takes the columns out
    of the table. With `for_plan`, inputs that would be on disk are not made. Raises InvalidData with a line for each
    problem.
    """
    data, source = spec.data, spec.data.source
    if not table.n_rows:
        raise InvalidData(f"{source}: holds no rows")
    roles, loss = assign_roles(table, data, source), build_loss(spec.model.loss.spec())
    problems = Problems(source, table)
    cells = training_cells(table, roles, data, loss, problems)
    missing = {name: data.column(name).missing or "error" for name in cells}
    kept = kept_rows(table, cells, missing, (*roles.target, *([roles.group] if roles.group else [])), problems)
    problems.raise_any()
    train, validation = _split(spec, cells, roles, kept.rows)
    rows = ChosenRows.of(_mask(train, table.n_rows))
    inputs = fit_inputs(cells, roles, data, rows, tokens=bool(spec.model.vocabulary))
    n_features = sum(len(rule.features) for rule in inputs)
    if (problem := features_problem(inputs, spec.model.input)) is not None:
        raise InvalidData(f"{source}: {problem}")
    spec, target = _with_target(spec.fitted(n_features, None, roles.target), cells, roles, rows, loss)
    rules = Preprocessing(inputs=inputs, target=target, key=roles.key, left_out=roles.left_out)
    parts, used = [train, validation], _mask(kept.rows, table.n_rows)
    check_tokens(cells, inputs, spec.model_spec(), used, problems)
    x = _inputs(spec, cells, inputs, parts, problems, for_plan)
    y = _targets(spec, cells, target, used, problems)
    problems.raise_any()
    sets = [_dataset(spec, own, y[rows_], source, rules) for own, rows_ in zip(x, parts, strict=True)]
    said = (
        *left_out_line(roles.left_out),
        *filled_line(cells, inputs, used),
        *unknown_categories(cells, inputs, used),
        *stored_line(x[0]),
    )
    return FittedTable(spec=spec, train=sets[0], validation=sets[1], rules=rules, dropped=kept.said, said=said)


def rows_by_rules(
    spec: JobSpec, table: Table, rules: Preprocessing, source: str, *, targets: bool, for_plan: bool = False
) -> TableRows:
    """Return the rows of a table by rules that were fitted before. Columns are found by their names; others are
    ignored. Takes the columns out of the table. For `for_plan` see `training_rows`. Raises InvalidData with a line for
    each problem."""
    if not table.n_rows:
        raise InvalidData(f"{source}: holds no rows")
    problems = Problems(source, table)
    cells = cells_by_rules(table, rules, problems, targets=targets)
    missing = {rule.name: rule.missing if rule.fill is None else "most_frequent" for rule in rules.inputs}
    names = rules.target.names if targets else ()
    missing |= {name: spec.data.column(name).missing or "error" for name in names}
    kept = kept_rows(table, cells, missing, names, problems, fitted=True)
    used = _mask(kept.rows, table.n_rows)
    check_tokens(cells, rules.inputs, spec.model_spec(), used, problems)
    (x,) = _inputs(spec, cells, rules.inputs, [kept.rows], problems, for_plan)
    y = _targets(spec, cells, rules.target, used, problems)[kept.rows] if targets else None
    problems.raise_any()
    if isinstance(x, np.ndarray):
        x = fitting_inputs(x, spec.model_spec(), source, rules.features)
    if y is not None:
        y = fitting_targets(y, len(x), spec.model_spec(), source, rules.target.names)
    filled = filled_line(cells, rules.inputs, used)
    said = (*([kept.said] if kept.said else []), *filled, *unknown_categories(cells, rules.inputs, used))
    return TableRows(x=x, y=y, kept=kept.rows, said=said)


def _split(spec: JobSpec, cells: Mapping[str, Cells], roles: Roles, kept: RowNumbers) -> tuple[RowNumbers, RowNumbers]:
    """Return the rows of the table for training and for validation."""
    if isinstance(spec.data.validation, str):
        return kept, kept[:0]
    target, group = cells[roles.target[0]], None if roles.group is None else cells[roles.group]
    classes, whole = None, len(kept) == len(target)
    names: tuple[str, ...] = ()
    if isinstance(target, CategoryCells):
        there = np.flatnonzero(target.counts(slice(None) if whole else kept))
        number = np.zeros(len(target.texts), dtype=np.int64)
        number[there] = np.arange(len(there))
        codes = target.codes if whole else target.codes[kept]
        classes, names = number[codes], tuple(target.texts[k] for k in there.tolist())
    groups = None
    if group is not None:
        own = group.codes if isinstance(group, CategoryCells) else group.all()
        groups = np.unique(own[kept], return_inverse=True)[1]
    train, validation = split_rows(
        spec.data, len(kept), spec.seed, classes=classes, names=names, groups=groups, stratify=classes is not None
    )
    return (train, validation) if whole else (kept[train], kept[validation])


def _with_target(
    spec: JobSpec, cells: Mapping[str, Cells], roles: Roles, rows: ChosenRows | None, loss: Loss
) -> tuple[JobSpec, TargetRule]:
    """Return the job with its number of classes, and the rule of its target."""
    column, classes = cells[roles.target[0]], None
    if isinstance(column, CategoryCells):
        outputs = spec.model_spec().network.output.features if spec.is_resolved else None
        said = spec.data.column(column.name).kind == "category"
        classes = classes_of(column, loss, outputs, spec.data.source, said=said)
        if loss.takes_labels:
            spec = spec.fitted(0, len(classes))
    elif not spec.is_resolved:
        raise InvalidData(
            f"{spec.data.source}: units: classes needs one target whose values are the classes, but the targets are "
            f"labels in {some(roles.target)}; write the number of classes"
        )
    return spec, fit_target(cells, roles, spec.data, rows, loss, classes)


def _targets(spec: JobSpec, cells: Mapping[str, Cells], rule: TargetRule, used: Mask, problems: Problems) -> AnyArray:
    """Return the targets of all rows of the table, also of those that are not used."""
    loss = spec.model_spec().loss_function
    check_targets(cells, rule, spec.model_spec(), used, problems)
    if rule.classes is None:
        return numbers_of(cells, rule, used, "float64" if loss.takes_labels else spec.precision, problems)
    column = cells[rule.names[0]]
    assert isinstance(column, CategoryCells), "a target of classes"
    labels: AnyArray = labels_of(column, rule, used, loss.ignore_index, problems)
    return labels if loss.takes_labels else labels[:, None].astype(spec.precision)


def _inputs(
    spec: JobSpec,
    cells: Mapping[str, Cells],
    rules: Sequence[InputRule],
    parts: Sequence[RowNumbers],
    problems: Problems,
    for_plan: bool,
) -> Sequence[AnyArray | FileRows]:
    """Return the inputs (rows, features) of each part: arrays, or rows of a file if they are large."""
    n_rows, n_features = len(cells[rules[0].name]), sum(len(rule.features) for rule in rules)
    if spec.model.vocabulary or not is_large(n_rows, n_features, np.dtype(spec.precision).itemsize):
        return inputs_of(cells, rules, parts, _dtype(spec), problems)
    blocks = () if for_plan else input_blocks(cells, rules, parts, spec.precision, problems)
    everything = stored_rows(blocks, n_rows, n_features, np.dtype(spec.precision), problems.source)
    return [everything.take(rows) for rows in parts]


def _dataset(spec: JobSpec, x: AnyArray | FileRows, y: AnyArray, source: str, rules: Preprocessing) -> Dataset:
    model = spec.model_spec()
    if not len(x):
        labels = y.astype("int64") if model.loss_function.takes_labels else y
        return Dataset(x=np.asarray(x, "uint32") if model.vocabulary else x, y=labels)
    if isinstance(x, np.ndarray):
        x = fitting_inputs(x, model, source, rules.features)
    return Dataset(x=x, y=fitting_targets(y, len(x), model, source, rules.target.names))


def _dtype(spec: JobSpec) -> str:
    """The dtype of x before it is checked: token numbers must be exact."""
    return "float64" if spec.model.vocabulary else spec.precision


def _mask(rows: RowNumbers, n_rows: int) -> Mask:
    found = np.zeros(n_rows, dtype=bool)
    found[rows] = True
    return found
