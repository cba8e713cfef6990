from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.actors.shared_ring import Parked, RingReader, RingWriter, can_share_memory
from stages.actions import Kind
from stages.arrays import Array
from stages.channel import Tag
from tests.examples import examples

pytestmark = pytest.mark.skipif(not can_share_memory(), reason="this system has no memfd")

TAG = Tag(0, 0, Kind.FORWARD, 0)


def _ring(capacity: int) -> tuple[RingWriter, RingReader]:
    writer = RingWriter(capacity)
    reader = RingReader(0, os.dup(writer.descriptor), writer.capacity)
    writer.forget_descriptor()
    return writer, reader


@settings(max_examples=examples(60, 1000), deadline=None)
@given(st.lists(st.tuples(st.integers(1, 512), st.integers(0, 3)), max_size=60))
def test_what_is_not_released_is_never_written_over(steps: list[tuple[int, int]]) -> None:
    """Each step writes an array of so many float64, if there is room, and takes some of those that are parked, the last
    first."""
    writer, reader = _ring(4096)
    parked: list[tuple[Array, Parked]] = []
    for number, (size, taken) in enumerate(steps):
        array = np.full((1, size), float(number))
        place = writer.place(array.nbytes)
        if place is None:
            assert parked, "an empty ring has room for everything"
        else:
            writer.write(place[0], array)
            writer.written = place[1]
            parked.append((array, reader.park(TAG, *place, (1, size), array.dtype)))
        for _ in range(min(taken, len(parked))):
            expected, one = parked.pop()
            np.testing.assert_array_equal(reader.take(one), expected)
        writer.released = reader.released
    for expected, one in parked:
        np.testing.assert_array_equal(reader.take(one), expected)
    assert reader.released == writer.written
    assert reader.waiting() == []


def test_the_reader_can_neither_write_nor_shorten_the_memory() -> None:
    writer, reader = _ring(5000)
    assert writer.capacity == 8192, "whole pages"
    with pytest.raises(TypeError, match=r"read-only|modify"):
        reader._memory[0] = 1
    with pytest.raises(PermissionError):
        os.ftruncate(os.dup(RingWriter(1).descriptor), 0)


def test_memory_of_another_size_or_that_may_shrink_is_refused() -> None:
    """A write to a page that is gone would kill the process."""
    writer = RingWriter(4096)
    with pytest.raises(ValueError, match="change its size"):
        RingReader(0, writer.descriptor, 8192)
    loose = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
    os.ftruncate(loose, 4096)
    with pytest.raises(ValueError, match="change its size"):
        RingReader(0, loose, 4096)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(loose)


def test_without_memfd_memory_cannot_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, flags: int = 0) -> int:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert not can_share_memory()
    monkeypatch.delattr(os, "memfd_create")
    assert not can_share_memory()
