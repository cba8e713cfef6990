"""A worker's memory limit. Each test uses a process of its own, because a limit cannot be removed again."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from cluster.actors.process_limits import begin_measuring, data_bytes, limit_memory, spare_what_is_loaded, warm_up_blas
from stages.process_memory import peak_resident_bytes

MIB = 2**20
RUNTIME = 32 * MIB
"""The room for Python and its libraries in addition to the limit."""


def _elsewhere(work: Callable[[Any], None]) -> Any:
    """Return what `work` puts into a pipe in another process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(sender,))
    process.start()
    sender.close()
    try:
        assert receiver.poll(60), "nothing came"
        return receiver.recv()
    finally:
        process.join(60)


def _take(n_bytes: int) -> bool:
    """Whether this much memory can be allocated at once."""
    try:
        np.ones(n_bytes, np.uint8)
    except MemoryError:
        return False
    return True


def _take_within_a_limit(sender: Any) -> None:
    limit_memory(100 * MIB)
    sender.send([_take(90 * MIB), _take(100 * MIB + RUNTIME + MIB), _take(90 * MIB)])


def _limit_twice(sender: Any) -> None:
    limit_memory(10 * MIB)
    limit_memory(10_000 * MIB)  # the limit may be raised again
    sender.send([_take(200 * MIB)])


def _measure(sender: Any) -> None:
    array = np.ones(200 * MIB, np.uint8)
    before = peak_resident_bytes()
    del array
    resident = begin_measuring()
    low = peak_resident_bytes()
    again = np.ones(50 * MIB, np.uint8)
    sender.send((before, resident, low, peak_resident_bytes(), int(again[0])))


def _warm_up(sender: Any) -> None:
    found = []
    for precision in ("float32", "float64"):
        warm_up_blas(precision)
        before = data_bytes()
        a = np.ones((256, 256), dtype=precision)
        np.matmul(a, a)
        found.append(data_bytes() - before)
    sender.send(found)


def _wide_product(sender: Any) -> None:
    from scipy.linalg import blas

    with threadpool_limits(1):  # as in a worker with one CPU
        _multiply_wide(sender, blas)


def _multiply_wide(sender: Any, blas: Any) -> None:
    warm_up_blas("float32", 50_000)
    a, b = np.ones((256, 768), "f4", order="F"), np.ones((256, 50_000), "f4", order="F")
    total = np.ones((768, 50_000), "f4", order="F")
    begin_measuring()
    before = peak_resident_bytes()
    blas.sgemm(1.0, a, b, trans_a=1, beta=1.0, c=total, overwrite_c=1)
    sender.send([peak_resident_bytes() - before])


def test_the_work_space_of_a_wide_product_is_there_before_the_job_is_measured() -> None:
    """The weight gradient of a large vocabulary: 25 MiB, which a plan cannot know."""
    (more,) = _elsewhere(_wide_product)
    assert more < 4 * MIB


def test_memory_within_the_limit_is_had_and_beyond_it_is_a_memory_error_that_can_be_told() -> None:
    assert _elsewhere(_take_within_a_limit) == [True, False, True]


def test_a_limit_can_be_raised_for_the_next_job() -> None:
    assert _elsewhere(_limit_twice) == [True]


def test_the_peak_is_measured_from_where_measuring_began() -> None:
    before, resident, low, peak, _ = _elsewhere(_measure)
    assert before >= 200 * MIB
    assert abs(low - resident) < 20 * MIB, "the peak before is forgotten"
    assert 45 * MIB < peak - resident < 100 * MIB


def test_after_warming_up_a_product_takes_no_more_than_its_arrays() -> None:
    assert max(_elsewhere(_warm_up)) < 8 * MIB


def test_a_search_for_garbage_leaves_out_what_was_loaded_before() -> None:
    before = gc.get_freeze_count()
    try:
        spare_what_is_loaded()
        assert gc.get_freeze_count() > before
        assert len(gc.get_objects()) < 1000
    finally:
        gc.unfreeze()
