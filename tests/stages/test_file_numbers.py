"""Rows that stay in their file: read as from an array, with bounded memory, and never after the file has changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import file_numbers
from stages.data import Dataset
from stages.errors import InvalidData
from stages.file_numbers import FileNumbers, FileRows, OpenFile


def rows_of(path: Path, array: np.ndarray[Any, Any], dtype: str, *, private: bool = False) -> FileRows:
    """Write the array behind 7 other bytes, and return it as rows of that file."""
    path.write_bytes(b"7 bytes" + array.tobytes())
    with path.open("rb") as file:
        opened = OpenFile(file.fileno(), "rows.npy", private=private)
    numbers = FileNumbers(opened, array.dtype, 7, array.size)
    return FileRows(numbers=numbers, width=array.shape[1], dtype=np.dtype(dtype), crc=1)


@pytest.mark.parametrize("group_bytes", [1, 40, 2**18])
@pytest.mark.parametrize(("stored", "read"), [("<f4", "f4"), (">f8", "f4"), ("u1", "f8"), ("?", "f4"), ("<i8", "u4")])
def test_rows_are_those_of_an_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str, read: str, group_bytes: int
) -> None:
    """Rows larger than a group are read one by one, smaller ones together."""
    monkeypatch.setattr(file_numbers, "_GROUP_BYTES", group_bytes)
    array = np.random.default_rng(0).integers(0, 100, (29, 5)).astype(stored)
    found, expected = rows_of(tmp_path / "a", array, read), array.astype(read)
    some = np.random.default_rng(1).permutation(29)[:17]
    for chosen in (None, np.random.default_rng(2).permutation(29)):
        ours = found if chosen is None else found.take(chosen)
        theirs = expected if chosen is None else expected[chosen]
        assert (ours.shape, ours.ndim, ours.dtype, len(ours)) == (theirs.shape, 2, theirs.dtype, 29)
        for rows in (some, slice(3, 11), slice(5, 3), slice(None), slice(20, 2, -3), slice(25, 99), some[:0]):
            one = ours[rows]
            assert (one.dtype, one.flags.c_contiguous) == (theirs.dtype, True)
            np.testing.assert_array_equal(one, theirs[rows])


@given(n=st.integers(1, 40), width=st.integers(1, 7), most=st.integers(1, 64))
def test_parts_have_all_numbers_in_whole_rows(
    tmp_path_factory: pytest.TempPathFactory, n: int, width: int, most: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "parts"
    array = np.arange(n * width, dtype=np.uint16).reshape(n, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_numbers, "_PART_BYTES", most)
        found = list(rows_of(path, array, "f4").numbers.parts(width))
    assert [start for start, _ in found] == np.cumsum([0, *(part.size for _, part in found)])[:-1].tolist()
    assert all(part.size % width == 0 for _, part in found)
    assert all(part.nbytes <= max(most, 2 * width) for _, part in found)
    assert np.concatenate([part for _, part in found]).tolist() == array.ravel().tolist()


def test_inputs_and_targets_in_files_share_the_numbers_of_their_rows(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.float32).reshape(20, 3)
    x, y = (rows_of(tmp_path / name, array, "f4") for name in "xy")
    order = np.random.default_rng(0).permutation(20)
    part = Dataset(x=x, y=y).take(order[:15])
    assert part.nbytes == 4 * 15
    assert part.take(slice(2, 5)).x[slice(None)].tolist() == array[order[2:5]].tolist()
    assert part.read_bytes(4) == 2 * 4 * 3 * 4
    assert part.read_bytes(40) == 2 * 15 * 3 * 4
    assert Dataset(x=array, y=array[:, 0]).read_bytes(4) == 0
    assert Dataset(x=x, y=array[:, 0]).take(order).nbytes == 4 * 20 + 4 * 20
    np.testing.assert_array_equal(part.inputs(np.array([3, 1])), array[order[[3, 1]]].T)


def test_the_fingerprint_knows_which_rows_belong_to_it(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.float32).reshape(20, 3)
    x = rows_of(tmp_path / "x", array, "f4")
    y, order = np.zeros(20, np.int64), np.random.default_rng(0).permutation(20)
    whole = Dataset(x=x, y=y)
    others = [whole, whole.take(order), whole.take(order[:10]), whole.take(order[::-1])]
    assert len({one.fingerprint() for one in others}) == 4
    assert whole.take(order).fingerprint() == whole.take(order).fingerprint()


CHANGES = {
    "was cut short while it was in use, from 247 bytes to 100;": lambda path: os.truncate(path, 100),
    "was changed while it was in use;": lambda path: os.utime(path, ns=(1, 1)),
}


@pytest.mark.parametrize("told", CHANGES)
def test_a_file_that_changes_is_one_line_and_no_signal(tmp_path: Path, told: str) -> None:
    """Of a mapped file that was cut short, reading killed the process by SIGBUS."""
    array = np.arange(60, dtype=np.float32).reshape(20, 3)
    x = rows_of(tmp_path / "x", array, "f4")
    assert x[slice(0, 2)].tolist() == array[:2].tolist()
    CHANGES[told](tmp_path / "x")
    for read in (lambda: x[np.array([19, 2])], lambda: x[slice(15, 18)], lambda: list(x.numbers.parts())):
        with pytest.raises(InvalidData) as refused:
            read()
        assert str(refused.value).startswith(f"rows.npy: {told}")
        assert len(refused.value.problems) == 1


def test_a_file_that_is_cut_short_between_check_and_reading_is_one_line(tmp_path: Path) -> None:
    x = rows_of(tmp_path / "x", np.zeros((20, 3), np.float32), "f4", private=True)  # whose state is not checked
    os.truncate(tmp_path / "x", 100)
    for rows in (np.array([1, 19]), slice(1, 20)):
        with pytest.raises(InvalidData, match="was cut short while it was in use, from 247 bytes to 100;"):
            x[rows]


def test_another_file_of_that_name_is_not_read(tmp_path: Path) -> None:
    """A new version that takes the place of the old one does no harm: the job goes on with what it began with."""
    array = np.arange(60, dtype=np.float32).reshape(20, 3)
    x = rows_of(tmp_path / "x", array, "f4")
    (tmp_path / "new").write_bytes(bytes(100))
    (tmp_path / "new").replace(tmp_path / "x")
    assert x[slice(None)].tolist() == array.tolist()


def test_a_file_is_closed_with_the_last_of_its_rows(tmp_path: Path) -> None:
    x = rows_of(tmp_path / "x", np.zeros((20, 3), np.float32), "f4")
    part, descriptor = x.take(np.arange(5)), x.numbers.file.descriptor
    del x
    assert os.readlink(f"/proc/self/fd/{descriptor}") == str(tmp_path / "x")
    del part
    with pytest.raises(OSError, match="No such file"):
        os.readlink(f"/proc/self/fd/{descriptor}")
