"""Counts by class and sums of differences: whatever the chunks, scikit-learn's figures follow from them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from stages.losses import LossSpec, build_loss, loss_entry
from stages.quality import MOST_CONFUSED, ClassCounts, NumberSums, Quality, added, quality

CHUNKS = [(0, 1), (1, 40), (40, 97)]
ROWS = 97


def _whole(loss: LossSpec | str, f: np.ndarray, targets: np.ndarray) -> Quality:
    found: Quality | None = None
    for a, b in CHUNKS:
        found = added(found, quality(build_loss(loss), f[:, a:b], targets[..., a:b]))
    assert found is not None
    return found


@pytest.mark.parametrize("classes", [2, 5, MOST_CONFUSED + 1])
def test_classes_are_counted_as_by_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(classes)
    f, labels = rng.normal(size=(classes, ROWS)), rng.integers(0, classes - 1, size=ROWS)  # the last class has no row
    found = _whole("cross_entropy", f, labels)
    assert isinstance(found, ClassCounts)
    expected = metrics.confusion_matrix(labels, f.argmax(axis=0), labels=range(classes))
    assert found.true.tolist() == expected.sum(axis=1).tolist()
    assert found.predicted.tolist() == expected.sum(axis=0).tolist()
    assert found.right.tolist() == np.diag(expected).tolist()
    assert (found.confusion is None) is (classes > MOST_CONFUSED)
    if found.confusion is not None:
        assert found.confusion.tolist() == expected.tolist()


def test_ignored_labels_do_not_count() -> None:
    found = _whole(loss_entry("cross_entropy", ignore_index=-1), np.eye(3)[:, np.arange(ROWS) % 3], np.full(ROWS, -1))
    assert isinstance(found, ClassCounts)
    assert found.true.sum() == found.predicted.sum() == 0


def test_one_yes_or_no_is_two_classes_and_several_are_each_their_own() -> None:
    rng = np.random.default_rng(3)
    f, y = rng.normal(size=(3, ROWS)), (rng.random((3, ROWS)) > 0.7).astype(np.float32)
    one, three = _whole("binary_cross_entropy", f[:1], y[:1]), _whole("binary_cross_entropy", f, y)
    assert isinstance(one, ClassCounts)
    assert isinstance(three, ClassCounts)
    assert one.confusion is not None
    assert one.confusion.tolist() == metrics.confusion_matrix(y[0], f[0] > 0).tolist()
    both = metrics.multilabel_confusion_matrix(y.T, (f > 0).T.astype(np.float32))
    assert three.right.tolist() == both[:, 1, 1].tolist()
    assert three.true.tolist() == (both[:, 1, 1] + both[:, 1, 0]).tolist()
    assert three.predicted.tolist() == (both[:, 1, 1] + both[:, 0, 1]).tolist()


@pytest.mark.parametrize("far", [0.0, 1e6])
def test_differences_give_scikit_learns_figures_even_far_from_zero(far: float) -> None:
    rng = np.random.default_rng(4)
    y = rng.normal(size=(2, ROWS)) + far
    f = y + 0.3 * rng.normal(size=y.shape)
    found = _whole("mse", f, y)
    assert isinstance(found, NumberSums)
    assert found.rows == ROWS
    np.testing.assert_allclose(1 - found.squared / found.spread, metrics.r2_score(y.T, f.T, multioutput="raw_values"))
    np.testing.assert_allclose(found.absolute / ROWS, np.abs(f - y).mean(axis=1))
