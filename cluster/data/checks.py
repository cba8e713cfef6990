"""Do arrays fit the model? Every answer of no is one line: the source, the row and column, what to do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cluster.data.files import AnyArray
from stages.data import FloatArray
from stages.errors import InvalidData
from stages.spec import ModelSpec


def fitting_inputs(x: AnyArray, model: ModelSpec, source: str, columns: Sequence[str] | None = None) -> FloatArray:
    """x as (rows, features) of the model's precision. `columns` name the features of a table.

    Samples of any shape with as many numbers as `model.input` are flattened in C order. Raises InvalidData.
    """
    _require_numbers(x, "x", source)
    wanted = math.prod(model.input_shape)
    if x.ndim == 0 or (x.ndim == 1 and wanted != 1):
        raise InvalidData(f"{source}: x has the shape {list(x.shape)}, must be (rows, {wanted})")
    if len(x) == 0:
        raise InvalidData(f"{source}: holds no rows")
    given = math.prod(x.shape[1:])
    if given != wanted:
        what = f"{given} input columns" if columns is not None else f"{given} numbers a row in x"
        raise InvalidData(f"{source}: has {what}, but model.input is {list(model.input_shape)} = {wanted}; change one")
    return _finite(x.reshape(len(x), wanted), "x", model, source, columns)


def fitting_targets(y: AnyArray, n_rows: int, model: ModelSpec, source: str, columns: Sequence[str] | None) -> AnyArray:
    """y as labels (rows,) int64 for cross_entropy, else as (rows, outputs) of the model's precision.

    Raises InvalidData for another number of rows than `n_rows`, labels outside 0..outputs-1 or not whole, targets of
    another width than the model's outputs, NaN and infinities.
    """
    _require_numbers(y, "y", source)
    if y.ndim == 0 or len(y) != n_rows:
        given = len(y) if y.ndim else "no"
        raise InvalidData(f"{source}: x has {n_rows} rows but y has {given}; each row of x needs its row of y")
    outputs = model.network.output.numbers
    flat = y.reshape(n_rows, -1)
    if model.loss == "cross_entropy":
        return _labels(flat, outputs, source, columns)
    if flat.shape[1] != outputs:
        what = f"target columns ({', '.join(columns[:5])})" if columns is not None else "numbers a row in y"
        raise InvalidData(f"{source}: has {flat.shape[1]} {what}, but the last layer gives {outputs}; change one")
    return _finite(flat, "y", model, source, columns)


def _labels(y: AnyArray, classes: int, source: str, columns: Sequence[str] | None) -> AnyArray:
    if y.shape[1] != 1:
        raise InvalidData(
            f"{source}: y has {y.shape[1]} numbers a row, must be one label a row from 0 to {classes - 1}; "
            "cross_entropy takes the class's number, not a vector"
        )
    labels = y[:, 0]
    wrong = np.zeros(len(labels), dtype=bool)
    if labels.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            wrong = ~np.isfinite(labels) | (labels != np.floor(labels))
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidData(
            f"{source}: label {labels[row]} in {_place(row, 0, 'y', columns)} is not a whole number; "
            f"cross_entropy needs classes 0 to {classes - 1}"
        )
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidData(
            f"{source}: label {labels[row]} in {_place(row, 0, 'y', columns)} is not a class from 0 to {classes - 1}; "
            "number the classes from 0 or give the last layer more units"
        )
    return np.ascontiguousarray(labels, dtype=np.int64)


def _finite(values: AnyArray, name: str, model: ModelSpec, source: str, columns: Sequence[str] | None) -> FloatArray:
    with np.errstate(over="ignore"):
        cast: FloatArray = np.ascontiguousarray(values, dtype=model.precision)
    finite = np.isfinite(cast)
    if finite.all():
        return cast
    row, column = (int(i) for i in np.unravel_index(int((~finite).argmax()), cast.shape))
    original = float(values[row, column])
    place = _place(row, column, name, columns)
    if math.isfinite(original):
        raise InvalidData(
            f"{source}: {place} is {original:g}, too large for {model.precision}; scale it or use float64"
        )
    raise InvalidData(f"{source}: {place} is {original}; remove the row or fill the value in")


def _place(row: int, column: int, name: str, columns: Sequence[str] | None) -> str:
    """`x[3, 5]`, counted from 0 as in NumPy, or `row 4 of column 'age'`, counted from 1 as in a table."""
    return f"{name}[{row}, {column}]" if columns is None else f"row {row + 1} of column {columns[column]!r}"


def _require_numbers(array: np.ndarray[Any, Any], name: str, source: str) -> None:
    if array.dtype.kind not in "biuf":
        raise InvalidData(f"{source}: {name} is of type {array.dtype}, must be of real numbers")
