"""Checks whether arrays fit the model. An error is one line with the source, the row and column, and what to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from cluster.data.array_files import FileArray
from cluster.data.files import AnyArray
from stages.data import FloatArray
from stages.errors import InvalidData
from stages.file_numbers import FileRows
from stages.spec import ModelSpec

_AT_ONCE = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Checking:
    """How to check arrays that stay in their file. `whole`: from end to end, not the first part alone. `known` has the
    checksums of those that another process of this machine has checked, by `FileRows.check`: they are not read again.
    """

    whole: bool = True
    known: Mapping[str, int] = field(default_factory=dict)


WHOLE = Checking()


@overload
def fitting_inputs(x: AnyArray, model: ModelSpec, source: str, columns: Sequence[str] | None = None) -> AnyArray: ...
@overload
def fitting_inputs(
    x: AnyArray | FileArray,
    model: ModelSpec,
    source: str,
    columns: Sequence[str] | None = None,
    *,
    checking: Checking = WHOLE,
) -> AnyArray | FileRows: ...
def fitting_inputs(
    x: AnyArray | FileArray,
    model: ModelSpec,
    source: str,
    columns: Sequence[str] | None = None,
    *,
    checking: Checking = WHOLE,
) -> AnyArray | FileRows:
    """Return x as (rows, features) in the model's precision. `columns` name the features of a table. An array that
    stays in its file is read once, in parts, as `checking` says.

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

    def converted(rows: AnyArray, first: int) -> AnyArray:
        if model.vocabulary:
            return _tokens(rows, model.vocabulary, source, columns, first)
        return _finite(rows, "x", model, source, columns, first)

    if isinstance(x, FileArray):
        return _from_file(x, converted, checking, f"{model.precision} {model.vocabulary}")
    return converted(x.reshape(len(x), wanted), 0)


def _from_file(
    array: FileArray, converted: Callable[[AnyArray, int], AnyArray], checking: Checking, how: str
) -> FileRows:
    """Check the rows of a file in parts, by a function of a part's rows and the number of the first of them. `how`
    names all that the function depends on."""
    dtype, crc = array.dtype, 0
    identity = array.numbers.file.identity()
    check = None if identity is None else f"{identity} {array.numbers.offset} {how}"
    known = checking.known.get(check or "")
    check = check if checking.whole else None
    for first, rows, crc_so_far in array.parts():
        dtype, crc = converted(rows, first).dtype, crc_so_far
        if known is not None or not checking.whole:
            break
    crc = crc if known is None else known
    return FileRows(numbers=array.numbers, width=array.width, dtype=dtype, crc=crc, check=check)


def _tokens(x: AnyArray, vocabulary: int, source: str, columns: Sequence[str] | None, first: int) -> AnyArray:
    """x as whole numbers (rows, positions), each below `vocabulary`. `first` is the number of its first row."""
    with np.errstate(invalid="ignore"):
        wrong = ~((x >= 0) & (x < vocabulary) & (x == np.floor(x)))
    if wrong.any():
        row, column = _first_place(wrong)
        raise InvalidData(
            f"{source}: token {x[row, column]} in {_place(first + row, column, 'x', columns)} is not in the vocabulary "
            f"of {vocabulary} tokens; they are numbered from 0"
        )
    return np.ascontiguousarray(x, dtype=np.uint32)


@overload
def fitting_targets(
    y: AnyArray, n_rows: int, model: ModelSpec, source: str, columns: Sequence[str] | None
) -> AnyArray: ...
@overload
def fitting_targets(
    y: AnyArray | FileArray,
    n_rows: int,
    model: ModelSpec,
    source: str,
    columns: Sequence[str] | None,
    *,
    checking: Checking = WHOLE,
) -> AnyArray | FileRows: ...
def fitting_targets(
    y: AnyArray | FileArray,
    n_rows: int,
    model: ModelSpec,
    source: str,
    columns: Sequence[str] | None,
    *,
    checking: Checking = WHOLE,
) -> AnyArray | FileRows:
    """Return y as labels (rows,) or (rows, positions) int64 for a loss that takes them, else as (rows, outputs) in the
    model's precision. For `checking` see `fitting_inputs`.

    Raises InvalidData if y does not have `n_rows` rows or the width of the model's outputs, if a label is not a whole
    number from 0 to outputs - 1, and for NaN and infinities.
    """
    _require_numbers(y, "y", source)
    if y.ndim == 0 or len(y) != n_rows:
        given = len(y) if y.ndim else "no"
        raise InvalidData(f"{source}: x has {n_rows} rows but y has {given}; each row of x needs its row of y")
    output, loss, width = model.network.output, model.loss_function, math.prod(y.shape[1:])
    if not loss.takes_labels and width != output.numbers:
        what = f"target columns ({', '.join(columns[:5])})" if columns is not None else "numbers a row in y"
        raise InvalidData(f"{source}: has {width} {what}, but the last layer gives {output.numbers}; change one")

    def converted(rows: AnyArray, first: int) -> AnyArray:
        if loss.takes_labels:
            return _labels(rows, model, source, columns, first)
        targets = _finite(rows, "y", model, source, columns, first)
        if loss.targets_between is not None:
            _require_between(targets, *loss.targets_between, source, columns, first)
        return targets

    if isinstance(y, FileArray):
        return _from_file(y, converted, checking, f"{model.precision} {model.loss} {output.features}")
    found = converted(y.reshape(n_rows, width), 0)
    return found[:, 0] if loss.takes_labels and not output.positions else found


def require_counted(y: Any, model: ModelSpec, source: str, kind: str, hint: str = "change ignore_index") -> None:
    """Raise InvalidData if the loss ignores all of these labels: rows of them, or windows over tokens."""
    ignored = model.loss_function.ignore_index
    together = max(1, _AT_ONCE // math.prod(y.shape[1:]))
    if ignored is not None and not any((y[a : a + together] != ignored).any() for a in range(0, len(y), together)):
        raise InvalidData(f"{source}: every label for {kind} is {ignored}, which the loss ignores; {hint}")


def _require_between(
    targets: FloatArray, least: float, most: float, source: str, columns: Sequence[str] | None, first: int
) -> None:
    wrong = (targets < least) | (targets > most)
    if wrong.any():
        row, column = _first_place(wrong)
        raise InvalidData(
            f"{source}: {_place(first + row, column, 'y', columns)} is {targets[row, column]:g}, but "
            f"the loss takes targets from {least:g} to {most:g}"
        )


def _labels(y: AnyArray, model: ModelSpec, source: str, columns: Sequence[str] | None, first: int) -> AnyArray:
    """Return labels (rows, places) int64. Raises InvalidData."""
    classes, places, ignored = (
        model.network.output.features,
        model.network.output.columns,
        model.loss_function.ignore_index,
    )
    loss = model.loss if isinstance(model.loss, str) else model.loss.kind
    if y.shape[1] != places:
        right = "one label" if places == 1 else f"{places} labels"
        raise InvalidData(
            f"{source}: y has {y.shape[1]} numbers a row, must be {right} a row from 0 to {classes - 1}; "
            f"{loss} takes the class's number, not a vector"
        )
    wrong = np.zeros(y.shape, dtype=bool)
    if y.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            wrong = ~np.isfinite(y) | (y != np.floor(y))
    if wrong.any():
        row, column = _first_place(wrong)
        raise InvalidData(
            f"{source}: label {y[row, column]} in {_place(first + row, column, 'y', columns)} is not a whole number; "
            f"{loss} needs classes 0 to {classes - 1}"
        )
    wrong = (y < 0) | (y >= classes)
    if ignored is not None:
        wrong &= y != ignored
    if wrong.any():
        row, column = _first_place(wrong)
        raise InvalidData(
            f"{source}: label {y[row, column]} in {_place(first + row, column, 'y', columns)} is not a class from 0 to "
            f"{classes - 1}; number the classes from 0 or give the last layer more units"
        )
    return np.ascontiguousarray(y, dtype=np.int64)


def _finite(
    values: AnyArray, name: str, model: ModelSpec, source: str, columns: Sequence[str] | None, first: int
) -> FloatArray:
    with np.errstate(over="ignore"):
        cast: FloatArray = np.ascontiguousarray(values, dtype=model.precision)
    finite = np.isfinite(cast)
    if finite.all():
        return cast
    row, column = _first_place(~finite)
    original = float(values[row, column])
    place = _place(first + row, column, name, columns)
    if math.isfinite(original):
        raise InvalidData(
            f"{source}: {place} is {original:g}, too large for {model.precision}; scale it or use float64"
        )
    raise InvalidData(f"{source}: {place} is {original}; remove the row or fill the value in")


def _first_place(wrong: NDArray[np.bool_]) -> tuple[int, int]:
    """Return row and column of the first True."""
    row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
    return int(row), int(column)


def _place(row: int, column: int, name: str, columns: Sequence[str] | None) -> str:
    """Return `x[3, 5]`, counted from 0 as in NumPy, or `row 4 of column 'age'`, counted from 1 as in a table."""
    return f"{name}[{row}, {column}]" if columns is None else f"row {row + 1} of column {columns[column]!r}"


def _require_numbers(array: AnyArray | FileArray, name: str, source: str) -> None:
    if array.dtype.kind not in "biuf":
        raise InvalidData(f"{source}: {name} is of type {array.dtype}, must be of real numbers")
