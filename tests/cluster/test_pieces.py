"""Columns in pieces give the numbers of columns in one array, from memory and from a file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.data.formats.stored_text import MappedColumns, seen_in, stored_columns
from cluster.data.pieces import Pieces
from cluster.data.tables import cells as reading_cells
from cluster.data.tables.cells import NumberCells, number_cells
from cluster.data.tables.moments import ChosenRows, moments
from cluster.data.tables.problems import Problems
from cluster.data.tables.threads import ahead
from stages.file_numbers import FileNumbers, OpenFile


@pytest.fixture(autouse=True, scope="module")
def small_chunks() -> Iterator[None]:
    """Chunks of any size stay apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading_cells, "_LEAST_ROWS", 0)
        yield


cells = st.one_of(st.none(), st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(-(2**53), 2**53))
chunks = st.lists(st.lists(cells, max_size=5), min_size=1, max_size=6)


@given(chunks, st.integers(0, 30), st.integers(0, 30))
def test_a_column_of_several_chunks_has_the_numbers_of_one(parts: list[list[Any]], start: int, length: int) -> None:
    column = pa.chunked_array([pa.array(part, pa.float64()) for part in parts], pa.float64())
    problems = Problems("rows.csv", None)  # type: ignore[arg-type]
    found, flat = number_cells("a", column, problems), [value for part in parts for value in part]
    wanted = np.array([np.nan if value is None else value for value in flat], dtype=np.float64)
    stop = min(len(flat), start + length)
    assert found.all().tobytes() == wanted.tobytes()
    if start < stop:
        assert found.block(start, start + length).tobytes() == wanted[start:stop].tobytes()
        assert found.less(0.5, start, stop).tobytes() == (wanted[start:stop] - 0.5).tobytes()
    if len(flat):
        mask = np.arange(len(flat)) % 3 != 1
        one = NumberCells("a", wanted, has_gaps=found.has_gaps)
        assert moments(found, ChosenRows.of(mask)) == moments(one, ChosenRows.of(mask))


def test_pieces_of_a_file_and_of_memory_are_read_alike() -> None:
    numbers = np.arange(1000, dtype=np.int32)
    with tempfile.TemporaryFile() as file:
        file.write(numbers.tobytes())
        file.flush()
        opened = OpenFile(file.fileno(), "x", private=True)
    mixed = Pieces.of(
        [numbers[:10], FileNumbers(opened, numbers.dtype, 40, 700), numbers[710:].astype(np.float64), numbers[:0]]
    )
    assert len(mixed) == 1000
    assert mixed.dtype == np.float64
    assert mixed.whole().tolist() == numbers.tolist()
    found = np.empty(720)
    mixed.read_into(found, 5)
    assert found.tolist() == numbers[5:725].tolist()


def test_columns_of_a_large_text_are_read_from_the_readers_own_file() -> None:
    parts = [pa.table({"a": [1.5, 2.5, 3.5], "b": [1, 2, 3]}), pa.table({"a": [4.5, 5.5], "b": [4, 5]})]
    stored = stored_columns(iter(parts), 1000, "x.csv")
    columns = stored.one_at_a_time(stored.columns)
    assert isinstance(columns, MappedColumns)
    problems = Problems("x.csv", None)  # type: ignore[arg-type]
    made = number_cells("a", columns.pop("a"), problems).values
    found = columns.in_file(made)
    assert found is not None
    assert all(isinstance(part, FileNumbers) for part in found.parts)
    assert found.whole().tolist() == [1.5, 2.5, 3.5, 4.5, 5.5]
    assert columns.in_file(np.arange(3.0)) is None  # in memory
    assert stored.seen["a"] == (False, True)


@pytest.mark.parametrize(
    ("values", "large", "finite"),
    [
        ([1.0, -2.0], False, True),
        ([1.0, None], False, False),
        ([1.0, float("nan")], False, False),
        ([float("nan"), -(2.0**63)], True, False),
        ([2.0**63], True, True),
        ([float("inf")], True, False),
        ([None], False, False),
        ([], False, True),
    ],
)
def test_what_is_seen_in_a_column(values: list[Any], large: bool, finite: bool) -> None:
    column = pa.chunked_array([pa.array(values, pa.float64()), pa.array([0.0])])
    assert seen_in(column) == (large, finite)


def test_work_ahead_keeps_the_order_and_never_overwrites_what_is_in_use() -> None:
    def work(item: int, space: list[int]) -> list[int]:
        space[0] = item
        return space

    found = [(item, result[0]) for item, result in ahead(work, range(200), lambda: [0])]
    assert found == [(k, k) for k in range(200)]


def test_an_error_of_work_ahead_is_raised() -> None:
    def work(item: int, space: None) -> int:
        return 1 // (5 - item)

    with pytest.raises(ZeroDivisionError):
        list(ahead(work, range(100), lambda: None))
