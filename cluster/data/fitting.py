"""Fits the rules of `cluster.data.preprocessing` to the training rows of a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from cluster.data.cells import is_numeric, number_cells, text_cells
from cluster.data.files import Table
from cluster.data.preprocessing import CategoryRule, NumberRule, Preprocessing, TargetRule
from cluster.data.roles import Roles
from coordinator.job.data_section import ColumnSection, DataSection
from stages.data import RowNumbers
from stages.losses import Loss


def fit(
    table: Table, roles: Roles, data: DataSection, train: RowNumbers, loss: Loss, units: int | None
) -> Preprocessing:
    """Return the rules, fitted to the rows `train`. `units`: outputs of the last layer; None if they follow from the
    classes.

    The classes are those of all rows of the table.
    """
    inputs = tuple(_input_rule(name, table.columns[name], data.column(name), train) for name in roles.inputs)
    return Preprocessing(
        inputs=inputs, target=_target(table, roles, data, train, loss, units), key=roles.key, left_out=roles.left_out
    )


def _input_rule(name: str, column: Any, said: ColumnSection, train: RowNumbers) -> NumberRule | CategoryRule:
    missing = said.missing or "error"
    if said.kind == "number" or (said.kind is None and is_numeric(column)):
        values = number_cells(column)[train]
        offset, divisor = _scaling(values[~np.isnan(values)], said.scale or "standard")
        return NumberRule(name=name, scale=said.scale or "standard", offset=offset, divisor=divisor, missing=missing)
    categories = text_cells(column).take(train).unique().drop_null().to_pylist()
    return CategoryRule(name=name, categories=tuple(sorted(categories)), missing=missing)


def _scaling(values: np.ndarray[Any, np.dtype[np.float64]], scale: str) -> tuple[float, float]:
    if scale == "none" or not len(values):
        return 0.0, 1.0
    if scale == "minmax":
        low, high = float(values.min()), float(values.max())
        return low, high - low or 1.0
    return float(values.mean()), float(values.std()) or 1.0


def _target(
    table: Table, roles: Roles, data: DataSection, train: RowNumbers, loss: Loss, units: int | None
) -> TargetRule:
    if loss.takes_labels:
        return TargetRule(names=roles.target, classes=_classes(table.columns[roles.target[0]], units))
    scale = "none" if loss.targets_between is not None else "standard"
    scales = [data.columns[name].scale if name in data.columns else None for name in roles.target]
    found = [
        _scaling(number_cells(table.columns[name])[train], own or data.scale or scale)
        for name, own in zip(roles.target, scales, strict=True)
    ]
    return TargetRule(
        names=roles.target, scale=scale, offsets=tuple(a for a, _ in found), divisors=tuple(b for _, b in found)
    )


def _classes(column: Any, units: int | None) -> tuple[str, ...]:
    if not is_numeric(column):
        return tuple(sorted(text_cells(column).unique().drop_null().to_pylist()))
    distinct = np.unique(number_cells(column))
    if units is not None and distinct.min() >= 0 and distinct.max() < units:
        return tuple(str(k) for k in range(units))
    return tuple(f"{value:g}" for value in distinct)
