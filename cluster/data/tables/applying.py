"""Applies the rules of `cluster.data.tables.preprocessing` to the cells of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cluster.data.files import AnyArray
from cluster.data.tables.cells import CategoryCells, Cells, Mask, NumberCells
from cluster.data.tables.preprocessing import CategoryRule, InputRule, NumberRule, TargetRule
from cluster.data.tables.problems import Problems, shown
from cluster.data.tables.threads import ahead, in_threads
from coordinator.texts import counted, some
from stages.data import RowNumbers

_LARGE = 2**20
"""Numbers of a table that is converted in several threads."""
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
    blocks = _Blocks(cells, rules, parts, dtype)
    everything = np.empty((sum(map(len, parts)), blocks.n_features), dtype=dtype)
    place = np.full(blocks.n_rows, -1, dtype=np.int64)
    place[np.concatenate(parts)] = np.arange(len(everything))
    whole_rows = _as_items(everything)

    def fill(start: int) -> bool:
        block, finite = blocks.make(start, blocks.space())
        own, items = place[start : start + len(block)], _as_items(block)
        if len(everything) < blocks.n_rows:
            here = np.flatnonzero(own >= 0)
            own, items = own[here], items[here]
        whole_rows[own] = items
        return finite

    fine = in_threads(fill, blocks.starts, large=blocks.n_rows * blocks.n_features >= _LARGE)
    blocks.add_problems([start for start, finite in zip(blocks.starts, fine, strict=True) if not finite], problems)
    ends = np.cumsum([len(rows) for rows in parts])
    return [everything[end - len(rows) : end] for rows, end in zip(parts, ends.tolist(), strict=True)]


def input_blocks(
    cells: Mapping[str, Cells],
    rules: Sequence[InputRule],
    parts: Sequence[RowNumbers],
    dtype: str,
    problems: Problems,
) -> Iterator[tuple[int, AnyArray]]:
    """Yield the inputs (rows, features) of all rows of the table in blocks, each with the number of its first row. A
    block is overwritten once the next was asked for. `parts` list the rows that are used: adds a problem for each of
    their numbers that is too large for `dtype`."""
    blocks = _Blocks(cells, rules, parts, dtype)
    for start, (block, finite) in ahead(blocks.make, blocks.starts, blocks.space):
        if not finite:
            blocks.add_problems([start], problems)
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
        if column.texts == rule.categories:
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


def _as_items(rows: AnyArray) -> AnyArray:
    """Return contiguous rows (n, features) as (n,) items of their bytes, which NumPy copies faster by their numbers."""
    return rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).reshape(-1)


class _Blocks:
    """The inputs of a table's rows, made in blocks that begin at `starts`. `parts` list the rows that are used."""

    def __init__(
        self, cells: Mapping[str, Cells], rules: Sequence[InputRule], parts: Sequence[RowNumbers], dtype: str
    ) -> None:
        self.n_rows, self.n_features = len(cells[rules[0].name]), sum(len(rule.features) for rule in rules)
        self._cells, self._rules, self._dtype = cells, rules, dtype
        self._height = min(self.n_rows, max(64, _BLOCK_NUMBERS // self.n_features))
        self.starts = range(0, self.n_rows, self._height)
        self._used = np.zeros(self.n_rows, dtype=bool)
        for rows in parts:
            self._used[rows] = True
        numbers = [rule for rule in rules if isinstance(rule, NumberRule) and rule.fill is not None]
        self._filled = {rule.name for rule in numbers if cells[rule.name].empty() is not None}
        self._codes = {
            rule.name: _code_places(cells[rule.name], rule) for rule in rules if isinstance(rule, CategoryRule)
        }

    def space(self) -> AnyArray:
        """Return an array for a block: its columns one after another, and then its rows."""
        return np.empty((2, self._height * self.n_features), dtype=self._dtype)

    def make(self, start: int, space: AnyArray) -> tuple[AnyArray, bool]:
        """Return the block (rows, features) that begins at this row, made in `space`, and whether all of its numbers in
        used rows are finite."""
        stop = min(self.n_rows, start + self._height)
        n, place = stop - start, 0
        columns = space[0, : n * self.n_features].reshape(self.n_features, n)
        block = space[1, : n * self.n_features].reshape(n, self.n_features)
        for rule in self._rules:
            column, width = self._cells[rule.name], len(rule.features)
            if isinstance(rule, NumberRule):
                assert isinstance(column, NumberCells), "as the rule says"
                _scaled(column, rule, start, stop, columns[place], fill=rule.name in self._filled)
            else:
                assert isinstance(column, CategoryCells), "as the rule says"
                columns[place : place + width] = 0
                _mark(columns[place : place + width], self._codes[rule.name][column.codes[start:stop]])
            place += width
        block[:] = columns.T  # in the cache: quicker than to write each column into the rows
        finite = np.isfinite(block)
        return block, bool(finite.all() or (finite.all(axis=1) | ~self._used[start:stop]).all())

    def add_problems(self, starts: Sequence[int], problems: Problems) -> None:
        """Add a problem for each number in these blocks that is too large."""
        wrong = np.zeros((self.n_rows if starts else 0, self.n_features), dtype=bool)
        for start in starts:
            block, _ = self.make(start, self.space())
            wrong[start : start + len(block)] = ~np.isfinite(block) & self._used[start : start + len(block), None]
        place = 0
        for rule in self._rules if starts else ():
            column = self._cells[rule.name]
            if isinstance(column, NumberCells) and wrong[:, place].any():
                problems.add_cells(rule.name, wrong[:, place], column.value, _fits(self._dtype))
            place += len(rule.features)


def _mark(columns: AnyArray, own: NDArray[np.int64]) -> None:
    """Write 1 into column `own[i]` of each row i, if that is not negative."""
    rows = np.arange(len(own))
    if len(own) and own.min() < 0:
        rows = np.flatnonzero(own >= 0)
        own = own[rows]
    columns.reshape(-1)[own * columns.shape[1] + rows] = 1


def _scaled(cells: NumberCells, rule: NumberRule, start: int, stop: int, out: AnyArray, *, fill: bool) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        values = cells.less(rule.offset, start, stop)
        if fill and rule.fill is not None:
            values[np.isnan(values)] = rule.fill - rule.offset
        if rule.divisor != 1.0:
            values /= rule.divisor
        out[:] = values


def _code_places(cells: Cells, rule: CategoryRule) -> NDArray[np.int64]:
    """Return for each code of the column the place of its category in the rule, -1 if it has none or is empty."""
    assert isinstance(cells, CategoryCells), "as the rule says"
    known = {text: k for k, text in enumerate(rule.categories)}
    filled = known.get(rule.fill, -1) if rule.fill is not None else -1
    return np.array([*(known.get(text, -1) for text in cells.texts), filled], dtype=np.int64)


def _fits(dtype: str) -> str:
    other = "; scale it, or write precision: float64" if dtype == "float32" else ""
    return f"small enough for {dtype}{other}"
