"""The loss and accuracy on pages and in commands."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.timing.epoch_means import EpochMeans
from coordinator.train.rows import EvalRow, StepRow, take_row


def step(number: int, epoch: int, samples: int, loss: float, **more: Any) -> StepRow:
    facts: dict[str, Any] = {"seconds": 0.1, "grad_norm": 1.0, "learning_rate": 0.1, "bubble": 0.0, "accuracy": None}
    return StepRow(step=number, epoch=epoch, samples=samples, loss=loss, **{**facts, **more})


def test_the_mean_of_an_epoch_counts_each_row_once_and_begins_anew_with_the_next() -> None:
    """The last batch of an epoch has few rows: its loss alone jumps by a multiple from epoch to epoch."""
    means = EpochMeans()
    assert (means.loss, means.accuracy) == (None, None)
    for row in (
        step(1, 1, 100, 1.0, accuracy=0.5),
        step(2, 1, 100, 0.5, accuracy=0.7),
        step(3, 1, 10, 20.0, accuracy=0),
    ):
        take_row(means, row)
    assert means.loss == pytest.approx((100 * 1.0 + 100 * 0.5 + 10 * 20.0) / 210)
    assert means.accuracy == pytest.approx((50 + 70) / 210)
    take_row(means, step(4, 2, 100, 0.4))
    assert (means.loss, means.accuracy) == (0.4, None)


def test_a_sum_is_shown_per_row_in_training_and_in_validation() -> None:
    means = EpochMeans()
    take_row(means, step(1, 1, 100, 300.0, summed=True))
    take_row(means, step(2, 1, 50, 150.0, summed=True))
    assert means.loss == pytest.approx(3.0)
    evaluation = EvalRow(step=2, epoch=1, loss=60.0, accuracy=None, samples=20, summed=True)
    assert evaluation.loss_per_row == pytest.approx(3.0)
    assert evaluation.as_dict()["loss"] == 60.0, "files keep the sum"
