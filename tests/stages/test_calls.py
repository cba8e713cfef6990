"""How many Python functions an action calls: in small steps, these calls are the step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stages.actions import Action
from stages.arrays import Buffers, in_blocks, row_blocks
from stages.channel import LocalExchange
from stages.data import Dataset
from stages.orders import Order, TrainStep, Update, WorkerSetup
from stages.spec import ModelSpec, SgdSpec
from stages.stage import Stage
from stages.worker import Worker
from tests.stages.flat import flat_layer

_SGD = SgdSpec(learning_rate=0.1, momentum=0.9)


def _calls(what: Callable[[], Any]) -> int:
    """Return how many Python functions are called."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        what()
    finally:
        sys.setprofile(None)
    return count - 1  # `what` itself


def _model(n_linear: int, width: int = 6) -> ModelSpec:
    kinds = "r".join("L" * n_linear)
    return ModelSpec(
        input_shape=(width,),
        layers=tuple(flat_layer(kind, width) for kind in kinds),
        loss="mse",
        precision="float32",
        seed=3,
    )


@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_an_action_calls_two_functions_for_a_product_and_few_more(n: int) -> None:
    """The layer's method and the product; ReLU's method, backward with its blocks. Taking arrays from the pool, and the
    dtype that selects the product, were calls, too: with them, a step at width 64 took 1.3 times as long."""
    stage = Stage(_model(n), 0, 2 * n - 1, _SGD)
    x = np.ones((6, 4), np.float32)

    def step(j: int) -> tuple[int, int, int]:
        counts = _calls(lambda: stage.forward(j, x)), _calls(lambda: stage.backward_input(j, x))
        return *counts, _calls(lambda: stage.backward_weight(j))

    stage.begin_step(2)
    step(0)  # makes the arrays of the pool
    forward, backward, weight = step(1)
    assert forward <= 2 * n + (n - 1) + 3  # `Stage.forward`, `BoundSteps.run`, `_unpack`
    assert backward <= 2 * (n - 1) + 2 * (n - 1) + 3
    assert weight <= 2 * n + 3


def test_a_worker_calls_at_most_40_functions_an_action() -> None:
    """With four linear layers a stage; it was 79. All checks are among them, and what a step does once."""
    model, m, text = _model(8), 4, "0F0 1F0 1B0 0B0 0F1 1F1 1I1 0I1 1W1 0W1 0F2 1F2 1B2 0B2 0F3 1F3 1B3 0B3"
    lane = tuple(map(Action.parse, text.split()))
    setup = WorkerSetup(
        worker=0, model=model, optimizer=_SGD, bounds=(0, 8, 15), placement=(0, 0), lanes={m: lane}, micro_batches=m
    )
    rng = np.random.default_rng(0)
    rows = Dataset(x=rng.random((16, 6), np.float32), y=rng.random((16, 6), np.float32))
    worker = Worker(setup, LocalExchange(1.0), train=rows)

    def steps(first: int, n: int) -> None:
        orders: list[Order] = []
        for step in range(first, first + n):
            orders += [TrainStep(step, 0, 0, 16), Update(step, 0.1)]
        assert worker.run(orders).failure is None

    steps(1, 2)
    extra = _calls(lambda: steps(3, 4)) - _calls(lambda: steps(7, 2))  # of two steps
    assert extra / (2 * len(lane)) <= 40


@pytest.mark.parametrize("columns", [1, 2, 7, 32, 64])
@pytest.mark.parametrize("features", [1, 5, 64, 130])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_quick_sum_over_columns_has_the_bits_of_a_product_with_ones(
    columns: int, features: int, precision: str
) -> None:
    rng = np.random.default_rng(columns)
    dy = rng.standard_normal((features, columns)).astype(precision)
    ones = np.ones(columns, precision)
    assert dy.dot(ones).tobytes() == np.matmul(dy, ones).tobytes()


def test_the_pool_lends_from_the_same_shelf_after_it_was_trimmed() -> None:
    """Steps keep shelves. Arrays that are lent stay counted, and come back."""
    buffers = Buffers(np.dtype("f4"))
    shelf = buffers.shelf(3, 4)
    lent, free = buffers.take(3, 4), buffers.take(3, 4)
    buffers.give(free)
    assert shelf == [free]
    assert (buffers.held_bytes, buffers.lent_bytes) == (96, 48)
    buffers.trim()
    assert (shelf, buffers.held_bytes, buffers.lent_bytes) == ([], 48, 48)
    buffers.give(lent)
    assert buffers.shelf(3, 4) is shelf
    assert buffers.take(3, 4) is lent


def test_micro_batches_of_many_sizes_take_arrays_of_their_own() -> None:
    """More sizes than a stage keeps prepared."""
    stage = Stage(_model(2), 0, 3, _SGD)
    for _ in range(2):
        for columns in range(1, 13):
            x = np.full((6, columns), columns, np.float32)
            assert stage.infer(x).shape == (6, columns)
            stage.begin_step(1)
            assert stage.forward(0, x).shape == (6, columns)
            assert stage.backward_input(0, x).shape == (6, columns)
            stage.backward_weight(0)
            assert stage.buffers.lent_bytes == 0


def test_blocks_are_the_arrays_themselves_if_small_and_parts_of_the_same_rows_if_large() -> None:
    small, large = np.zeros((3, 4)), np.arange(3 * 40_000.0).reshape(3, 40_000)
    (only,) = in_blocks(small, small)
    assert all(block is small for block in only)
    blocks = list(in_blocks(large, large))
    assert [len(a) for a, _ in blocks] == [len(large[rows]) for rows in row_blocks(large)]
    assert np.concatenate([a for a, _ in blocks]).tobytes() == large.tobytes()
