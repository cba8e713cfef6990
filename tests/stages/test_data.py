from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.data import Dataset, batch_bounds, epoch_order, micro_batch_sizes, train_validation_split


def test_the_split_is_the_documented_random_stream() -> None:
    order = np.random.default_rng([7, 3]).permutation(103)
    train, validation = train_validation_split(103, 0.2, seed=7)
    assert validation.tolist() == order[:21].tolist()  # round(103 * 0.2) = 21
    assert train.tolist() == order[21:].tolist()


@given(st.integers(0, 300), st.floats(0, 1), st.integers(0, 2**63 - 1))
def test_the_split_drops_and_doubles_no_row(n_rows: int, share: float, seed: int) -> None:
    train, validation = train_validation_split(n_rows, share, seed)
    assert len(validation) == round(n_rows * share)
    assert sorted([*train, *validation]) == list(range(n_rows))


def test_a_share_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match=r"share must be from 0 to 1, got 1\.5"):
        train_validation_split(10, 1.5, seed=0)


def test_an_epochs_order_is_the_documented_random_stream() -> None:
    assert epoch_order(7, 2, 50).tolist() == np.random.default_rng([7, 1, 2]).permutation(50).tolist()
    assert epoch_order(7, 2, 50).tolist() != epoch_order(7, 3, 50).tolist()


@given(st.integers(0, 500), st.integers(1, 100))
def test_batches_follow_each_other_and_keep_the_last_partial_one(n_rows: int, batch_size: int) -> None:
    bounds = batch_bounds(n_rows, batch_size)
    assert [row for start, stop in bounds for row in range(start, stop)] == list(range(n_rows))
    assert [stop - start for start, stop in bounds[:-1]] == [batch_size] * (len(bounds) - 1 if bounds else 0)


@given(st.integers(0, 500), st.integers(1, 64))
def test_micro_batches_are_those_of_array_split_without_the_empty_ones(n_rows: int, m: int) -> None:
    parts = np.array_split(np.arange(n_rows), m)
    assert micro_batch_sizes(n_rows, m) == tuple(len(part) for part in parts if len(part))


@pytest.mark.parametrize("function", [batch_bounds, micro_batch_sizes])
def test_a_size_of_zero_is_refused(function: Callable[[int, int], object]) -> None:
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        function(10, 0)


def _data() -> Dataset:
    return Dataset(x=np.arange(12, dtype=np.float32).reshape(4, 3), y=np.array([0, 1, 0, 1]))


def test_taking_rows_keeps_inputs_and_labels_together() -> None:
    part = _data().take(np.array([2, 0]))
    assert (part.x.tolist(), part.y.tolist(), len(part)) == ([[6, 7, 8], [0, 1, 2]], [0, 0], 2)


def test_the_fingerprint_changes_with_values_shapes_and_types_and_with_nothing_else() -> None:
    data = _data()
    other_value = data.x.copy()
    other_value[3, 2] += 1
    others = [
        Dataset(x=other_value, y=data.y),
        Dataset(x=data.x.astype(np.float64), y=data.y),
        Dataset(x=data.x.reshape(4, 3)[:, ::-1], y=data.y),
        Dataset(x=data.x, y=data.y[::-1]),
        data.take(slice(0, 0)),
    ]
    prints = {data.fingerprint(), *(other.fingerprint() for other in others)}
    assert len(prints) == 6
    same = Dataset(x=np.asfortranarray(data.x.astype(">f4")), y=data.y.copy())
    assert same.fingerprint() == data.fingerprint()
