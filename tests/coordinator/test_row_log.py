"""Several steps as one row, which keeps their sums and means."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.timing.epoch_means import EpochMeans
from coordinator.train.row_log import RowLog
from coordinator.train.rows import STEP_FIGURES, TrainedStep, take_row


def _step(step: int, epoch: int = 1, **changes: Any) -> TrainedStep:
    values = {"samples": 4, "loss": float(step), "seconds": 0.5, "bubble": 0.1, "accuracy": step / 10} | changes
    return TrainedStep(step=step, epoch=epoch, grad_norm=step * 1.0, learning_rate=0.1 / step, **values)


def _rows(steps: list[TrainedStep], every: int) -> list[TrainedStep]:
    log = RowLog(every)
    return [row for step in steps for row in log.take(step)] + list(log.rest())


def test_a_row_ends_at_multiples_before_another_epoch_and_at_the_end() -> None:
    steps = [_step(k, epoch=1 if k <= 7 else 2) for k in range(1, 12)]
    assert [row.step for row in _rows(steps, 3)] == [3, 6, 7, 9, 11]
    assert [row.steps for row in _rows(steps, 3)] == [3, 3, None, 2, 2]
    assert _rows(steps, 1) == steps


@pytest.mark.parametrize("changes", [{}, {"counted": 0}, {"summed": True}, {"accuracy": None}])
@pytest.mark.parametrize("every", [2, 5, 100])
def test_means_and_sums_are_those_of_all_steps(changes: dict[str, Any], every: int) -> None:
    steps = [_step(k, **{"samples": k, **changes}) for k in range(1, 8)]
    if "counted" in changes:
        steps = [_step(k, counted=k % 3) for k in range(1, 8)]
    rows, all_of_them, logged = _rows(steps, every), EpochMeans(), EpochMeans()
    for step in steps:
        take_row(all_of_them, step)
    for row in rows:
        take_row(logged, row)
    assert logged.loss == pytest.approx(all_of_them.loss)
    assert logged.accuracy == (None if steps[0].accuracy is None else pytest.approx(all_of_them.accuracy))
    assert sum(row.samples for row in rows) == sum(step.samples for step in steps)
    assert sum(row.seconds for row in rows) == pytest.approx(sum(step.seconds for step in steps))
    assert (rows[-1].step, rows[-1].grad_norm) == (7, 7.0)


def test_a_step_s_seconds_are_told_as_those_of_one_step() -> None:
    (row,) = _rows([_step(1, seconds=1.0), _step(2, seconds=2.0)], 2)
    value = next(figure.value for figure in STEP_FIGURES if figure.name == "seconds")
    assert (row.seconds, value(row)) == (3.0, 1.5)


def test_a_row_of_one_step_says_nothing_of_steps() -> None:
    assert "steps" not in _step(1).as_dict()
    (row,) = _rows([_step(1), _step(2)], 9)
    assert row.as_dict()["steps"] == 2
    assert list(RowLog(3).rest()) == []
