"""Fits the rules of `cluster.data.tables.preprocessing` to the training rows of a table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cluster.data.tables.cells import CategoryCells, Cells, NumberCells
from cluster.data.tables.moments import ChosenRows, median, moments, most_frequent
from cluster.data.tables.preprocessing import CategoryRule, InputRule, NumberRule, TargetRule
from cluster.data.tables.roles import Roles
from cluster.data.tables.threads import in_threads
from coordinator.job.data_section import ColumnSection, DataSection
from stages.losses import Loss

_LARGE = 2**16
"""Rows of a table whose columns are fitted in several threads."""


def fit_inputs(
    cells: Mapping[str, Cells], roles: Roles, data: DataSection, rows: ChosenRows | None, *, tokens: bool
) -> tuple[InputRule, ...]:
    """Return the rules of the input columns, fitted to these rows (None: all rows).

    With `tokens`, numbers are token numbers, which are never scaled.
    """
    default = "none" if tokens else "standard"
    large = max(len(cells[name]) for name in roles.inputs) >= _LARGE

    def fitted(name: str) -> InputRule:
        return _input_rule(cells[name], data.column(name), rows, default)

    return tuple(in_threads(fitted, roles.inputs, large=large))


def fit_target(
    cells: Mapping[str, Cells],
    roles: Roles,
    data: DataSection,
    rows: ChosenRows | None,
    loss: Loss,
    classes: tuple[str, ...] | None,
) -> TargetRule:
    """Return the rule of the target: its `classes`, or the scaling of its numbers, fitted to the rows.

    Numbers are standardised by default if the loss is a mean of differences. Its value then does not depend on the
    target's unit.
    """
    if classes is not None or loss.takes_labels:
        return TargetRule(names=roles.target, classes=classes)
    default = "none" if loss.is_sum or loss.targets_between is not None else "standard"
    common = data.scale if loss.targets_between is None else None
    scales, found = [], []
    for name in roles.target:
        column = cells[name]
        assert isinstance(column, NumberCells), "targets without classes are numbers"
        given = data.columns.get(name, ColumnSection()).scale
        scales.append(given or common or default)
        found.append(_scaling(column, rows, scales[-1]))
    return TargetRule(
        names=roles.target,
        scale=scales[0] if len(set(scales)) == 1 else "mixed",
        offsets=tuple(offset for offset, _ in found),
        divisors=tuple(divisor for _, divisor in found),
    )


def _input_rule(cells: Cells, said: ColumnSection, rows: ChosenRows | None, default: str) -> InputRule:
    missing = said.missing or "error"
    if isinstance(cells, CategoryCells):
        return _category_rule(cells, missing, rows)
    scale = default if default == "none" else said.scale or default
    offset, divisor = _scaling(cells, rows, scale)
    fill = None
    if missing == "mean":
        fill = moments(cells, rows).mean
    elif missing in ("median", "most_frequent"):
        fill = median(cells, rows) if missing == "median" else most_frequent(cells, rows)
    return NumberRule(name=cells.name, scale=scale, offset=offset, divisor=divisor, missing=missing, fill=fill)


def _category_rule(cells: CategoryCells, missing: str, rows: ChosenRows | None) -> CategoryRule:
    counts = cells.counts(slice(None) if rows is None else rows.mask)
    known = np.flatnonzero(counts)
    fill = cells.texts[int(counts.argmax())] if missing == "most_frequent" and len(known) else None
    missing = missing if missing in ("drop", "most_frequent") else "error"
    return CategoryRule(
        name=cells.name, categories=tuple(cells.texts[k] for k in known.tolist()), missing=missing, fill=fill
    )


def _scaling(cells: NumberCells, rows: ChosenRows | None, scale: str) -> tuple[float, float]:
    """Return offset and divisor. A constant column has the divisor 1."""
    if scale == "none":
        return 0.0, 1.0
    found = moments(cells, rows)
    if scale == "minmax":
        return found.low, found.high - found.low or 1.0
    return found.mean, found.std or 1.0
