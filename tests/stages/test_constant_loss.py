"""The loss of the best constant answer, against the losses themselves at that answer and at its neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stages.layers.options import NoOptions
from stages.losses import LossSpec, build_loss
from stages.losses.base import Loss
from stages.losses.cross_entropy import CrossEntropyOptions
from stages.losses.differences import HuberOptions

_RNG = np.random.default_rng(3)
_NUMBERS = _RNG.normal(size=(2, 501)) * [[1.0], [3.0]]
_SHARES = (_RNG.random((2, 400)) < [[0.2], [0.9]]).astype(float)
_LABELS = _RNG.choice(5, size=600, p=[0.5, 0.2, 0.2, 0.1, 0.0])


def _loss(kind: str, options: Any = None) -> Loss:
    return build_loss(LossSpec(kind, options or NoOptions()))


@pytest.mark.parametrize(
    ("loss", "targets", "best"),
    [
        (_loss("mse"), _NUMBERS, _NUMBERS.mean(axis=1)),
        (_loss("sum_of_squares"), _NUMBERS, _NUMBERS.mean(axis=1)),
        (_loss("l1"), _NUMBERS, np.median(_NUMBERS, axis=1)),
        (_loss("huber", HuberOptions(delta=0.7)), _NUMBERS, None),
        (_loss("binary_cross_entropy"), _SHARES, np.log(_SHARES.mean(axis=1) / (1 - _SHARES.mean(axis=1)))),
    ],
)
def test_no_constant_answer_is_better(loss: Loss, targets: Any, best: Any) -> None:
    def at(answer: Any) -> float:
        f = np.repeat(np.asarray(answer)[:, None], targets.shape[1], axis=1)
        count = targets.shape[1] if loss.is_sum else loss.count(targets.shape[1], len(targets))
        return loss.evaluate(f, targets, 1).total / count

    found = loss.of_constant(targets, len(targets))
    assert found is not None
    if best is not None:
        assert found == pytest.approx(at(best), rel=1e-9)
    grid = np.linspace(-3, 3, 301)
    assert found <= min(at([a, b]) for a in grid[::10] for b in grid[::10]) + 1e-9
    closest = min(at([a, b]) for a in grid[100:200:2] for b in grid[100:200:2]) if best is None else found
    assert found == pytest.approx(closest, rel=1e-3)


@pytest.mark.parametrize(("ignored", "smoothing"), [(None, 0.0), (2, 0.0), (None, 0.1)])
def test_cross_entropy_is_that_of_the_classes_shares(ignored: int | None, smoothing: float) -> None:
    loss = _loss("cross_entropy", CrossEntropyOptions(ignore_index=ignored, label_smoothing=smoothing))
    counts = np.bincount(_LABELS[ignored != _LABELS] if ignored is not None else _LABELS, minlength=5)
    shares = (1 - smoothing) * counts / counts.sum() + smoothing / 5
    f = np.repeat(np.log(shares + 1e-300)[:, None], len(_LABELS), axis=1)
    counted = loss.n_counted(_LABELS)
    assert loss.of_constant(_LABELS, 5) == pytest.approx(loss.evaluate(f, _LABELS, 1).total / counted, rel=1e-9)


def test_labels_that_all_do_not_count_have_no_loss() -> None:
    loss = _loss("cross_entropy", CrossEntropyOptions(ignore_index=1))
    assert loss.of_constant(np.ones(4, dtype=np.int64), 3) is None
