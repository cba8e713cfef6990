"""Applies the rules of `cluster.data.preprocessing` to the cells of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cluster.data.cells import CategoryCells, Cells, Mask, NumberCells
from cluster.data.files import AnyArray
from cluster.data.preprocessing import CategoryRule, InputRule, NumberRule, TargetRule
from cluster.data.problems import Problems, shown
from coordinator.texts import counted, some
from stages.data import RowNumbers

_BLOCK_NUMBERS = 2**18  # of a block of rows, so that it stays in the cache while its columns are written


def inputs_of(
    cells: Mapping[str, Cells],
    rules: Sequence[InputRule],
    parts: Sequence[RowNumbers],
    dtype: str,
    problems: Problems,
) -> list[AnyArray]:
    """Return x (rows, features) of each part, which lists rows of the table in any order; no row is in two parts.

    Adds a problem for each number that is too large for `dtype`.
    """
    n_rows, n_features = len(cells[rules[0].name]), sum(len(rule.features) for rule in rules)
    found = [np.empty((len(rows), n_features), dtype=dtype) for rows in parts]
    places = [_places(rows, n_rows) for rows in parts]
    for start, block in input_blocks(cells, rules, parts, dtype, problems):
        stop = start + len(block)
        for x, place in zip(found, places, strict=True):
            if place is None:
                x[start:stop] = block
                continue
            own = place[start:stop]
            here = own >= 0
            x[own[here]] = block[here]
    return found


def input_blocks(
    cells: Mapping[str, Cells],
    rules: Sequence[InputRule],
    parts: Sequence[RowNumbers],
    dtype: str,
    problems: Problems,
) -> Iterator[tuple[int, AnyArray]]:
    """Yield the inputs (rows, features) of all rows of the table in blocks, each with the number of its first row, and
    always in the same array. `parts` list the rows that are used: adds a problem for each of their numbers that is too
    large for `dtype`."""
    n_rows, n_features = len(cells[rules[0].name]), sum(len(rule.features) for rule in rules)
    used = np.zeros(n_rows, dtype=bool)
    for rows in parts:
        used[rows] = True
    for start, block in _blocks(cells, rules, dtype, n_rows, n_features):
        finite = np.isfinite(block)
        if not finite.all():
            _add_too_large(cells, rules, ~finite & used[start : start + len(block), None], start, dtype, problems)
        yield start, block


def labels_of(
    cells: CategoryCells, rule: TargetRule, used: Mask, ignored: int | None, problems: Problems
) -> NDArray[np.int64]:
    """Return the label of each row (rows,). Adds a problem for each used row whose class is unknown."""
    assert rule.classes is not None, "a target of classes"
    known = {name: label for label, name in enumerate(rule.classes)}
    if ignored is not None:
        known.setdefault(str(ignored), ignored)
    wrong = np.array([*(text not in known for text in cells.texts), False])
    labels = np.array([*(known.get(text, 0) for text in cells.texts), 0], dtype=np.int64)
    if wrong.any():
        right = f"one of the classes {some(rule.classes, 10)}"
        problems.add_cells(cells.name, wrong[cells.codes] & used, cells.value, right)
    return labels[cells.codes]


def numbers_of(cells: Mapping[str, Cells], rule: TargetRule, used: Mask, dtype: str, problems: Problems) -> AnyArray:
    """Return the targets of each row (rows, targets). Adds a problem for each number too large for `dtype`."""
    y = np.empty((len(used), len(rule.names)), dtype=dtype)
    offsets, divisors = rule.offsets or (0.0,) * len(rule.names), rule.divisors or (1.0,) * len(rule.names)
    for j, (name, offset, divisor) in enumerate(zip(rule.names, offsets, divisors, strict=True)):
        column = cells[name]
        assert isinstance(column, NumberCells), "targets without classes are numbers"
        with np.errstate(over="ignore", invalid="ignore"):
            y[:, j] = (column.block(0, len(column)) - offset) / divisor
        large = ~np.isfinite(y[:, j]) & used
        if large.any():
            problems.add_cells(name, large, column.value, _fits(dtype))
    return y


def unknown_categories(cells: Mapping[str, Cells], rules: Sequence[InputRule], used: Mask) -> tuple[str, ...]:
    """Return a line for each column with values, in used rows, that the rules do not know."""
    lines = []
    for rule in rules:
        column = cells[rule.name]
        if not isinstance(rule, CategoryRule) or not isinstance(column, CategoryCells):
            continue
        counts, known = column.counts(used), frozenset(rule.categories)
        unknown = [text for text, n in zip(column.texts, counts.tolist(), strict=True) if n and text not in known]
        if unknown:
            n_cells = sum(n for text, n in zip(column.texts, counts.tolist(), strict=True) if text not in known)
            lines.append(
                f"{counted(n_cells, 'cell')} of {rule.name} with values that no training row has "
                f"({some([shown(text) for text in unknown], 5)}): 0 in all of its inputs"
            )
    return tuple(lines)


def _places(rows: RowNumbers, n_rows: int) -> RowNumbers | None:
    """Return for each row of the table its place in the part, -1 if it has none; None if they are all the rows as they
    stand."""
    if len(rows) == n_rows and np.array_equal(rows, np.arange(n_rows)):
        return None
    place = np.full(n_rows, -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    return place


def _blocks(
    cells: Mapping[str, Cells], rules: Sequence[InputRule], dtype: str, n_rows: int, n_features: int
) -> Iterator[tuple[int, AnyArray]]:
    """Yield the first row and the numbers (rows, features) of one block of rows after another, always in the same
    array."""
    height = max(64, _BLOCK_NUMBERS // max(1, n_features))
    space = np.empty((min(height, n_rows), n_features), dtype=dtype)
    gaps = {name: column.empty() is not None for name, column in cells.items()}
    codes = {rule.name: _code_places(cells[rule.name], rule) for rule in rules if isinstance(rule, CategoryRule)}
    for start in range(0, n_rows, height):
        stop = min(n_rows, start + height)
        block, place = space[: stop - start], 0
        for rule in rules:
            column, width = cells[rule.name], len(rule.features)
            if isinstance(rule, NumberRule):
                assert isinstance(column, NumberCells), "as the rule says"
                _scaled(column, rule, start, stop, block[:, place], fill=gaps[rule.name])
            else:
                assert isinstance(column, CategoryCells), "as the rule says"
                own = codes[rule.name][column.codes[start:stop]]
                block[:, place : place + width] = 0
                known = np.flatnonzero(own >= 0)
                block[known, place + own[known]] = 1
            place += width
        yield start, block


def _scaled(cells: NumberCells, rule: NumberRule, start: int, stop: int, out: AnyArray, *, fill: bool) -> None:
    values = cells.block(start, stop)
    if fill and rule.fill is not None:
        values[np.isnan(values)] = rule.fill
    with np.errstate(over="ignore", invalid="ignore"):
        if rule.offset != 0.0:
            values -= rule.offset
        if rule.divisor != 1.0:
            values /= rule.divisor
        out[:] = values


def _code_places(cells: Cells, rule: CategoryRule) -> NDArray[np.int64]:
    """Return for each code of the column the place of its category in the rule, -1 if it has none or is empty."""
    assert isinstance(cells, CategoryCells), "as the rule says"
    known = {text: k for k, text in enumerate(rule.categories)}
    filled = known.get(rule.fill, -1) if rule.fill is not None else -1
    return np.array([*(known.get(text, -1) for text in cells.texts), filled], dtype=np.int64)


def _add_too_large(
    cells: Mapping[str, Cells], rules: Sequence[InputRule], wrong: Mask, start: int, dtype: str, problems: Problems
) -> None:
    place = 0
    for rule in rules:
        column = cells[rule.name]
        if isinstance(column, NumberCells) and wrong[:, place].any():
            rows = np.zeros(len(column), dtype=bool)
            rows[start : start + len(wrong)] = wrong[:, place]
            problems.add_cells(rule.name, rows, column.value, _fits(dtype))
        place += len(rule.features)


def _fits(dtype: str) -> str:
    other = "; scale it, or write precision: float64" if dtype == "float32" else ""
    return f"small enough for {dtype}{other}"
