"""What the watch of a training says of given losses and norms, and what it does not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from coordinator.learning.training_warnings import Evaluated, Losses, loss_of_constant, overfitting
from coordinator.learning.warning import LearningWarning
from coordinator.learning.watch import LearningWatch
from coordinator.train.rows import EvalRow, TrainedStep


def _step(step: int, loss: float, *, epoch: int = 1, norm: float = 1.0, samples: int = 32) -> TrainedStep:
    return TrainedStep(
        step=step, epoch=epoch, samples=samples, loss=loss, seconds=0.1, grad_norm=norm, learning_rate=0.1, bubble=0.0,
        accuracy=None,
    )  # fmt: skip


def _codes(
    losses: Sequence[float], *, constant: float | None = 1.0, a_epoch: int = 10**9, norms: Sequence[float] = ()
) -> list[tuple[str, int]]:
    """Return the codes with the number of steps after which each came."""
    watch, found = LearningWatch(constant), list[tuple[str, int]]()
    for i, loss in enumerate(losses):
        row = _step(i + 1, loss, epoch=1 + i // a_epoch, norm=norms[i] if norms else 1.0)
        found += [(warning.code, i + 1) for warning in watch.step(row)]
    return found + [(warning.code, len(losses)) for warning in watch.end()]


@pytest.mark.parametrize(
    ("a_epoch", "steps", "after"),
    [(150, 400, 151), (40, 400, 121), (5000, 9000, 2000), (50, 60, 60), (1, 30, 30), (100, 19, None)],
)
def test_a_loss_that_stays_is_told_after_an_epoch_of_enough_steps(a_epoch: int, steps: int, after: int | None) -> None:
    told = [] if after is None else [("loss_of_constant", after)]
    assert _codes([1.0] * steps, a_epoch=a_epoch) == told


def test_a_loss_that_falls_or_is_better_than_a_constant_is_not_told() -> None:
    assert _codes([30 * 0.99**k for k in range(400)], a_epoch=100) == []
    assert _codes([0.95] * 400, a_epoch=100) == []
    assert _codes([1.0] * 400, a_epoch=100, constant=None) == []
    assert _codes([0.0] * 400, a_epoch=100, constant=0.0) == []
    assert loss_of_constant(Losses([1.0] * 200, 200, validation=0.7), 1.0) is None, "with dropout, validation is better"


def test_norms_explode_only_if_they_stay_and_the_loss_does_not_fall() -> None:
    calm, wild = [1.0] * 50, [5e3] * 20
    assert _codes([0.5] * 70, norms=calm + wild) == [("exploding_gradients", 60)]
    assert _codes([0.5] * 70, norms=[*calm, *wild[:9], *calm[:11]]) == [], "nine steps are not enough"
    assert _codes([0.5] * 50 + [0.4] * 20, norms=calm + wild) == [], "a plateau has ended"


def test_a_jump_is_told_once_and_before_anything_else_about_the_losses() -> None:
    losses = [0.5] * 40 + [4.0**k for k in range(60)]
    assert [code for code, _ in _codes(losses)] == ["loss_jump"]
    assert _codes([0.5, 9.0, *[0.5] * 30], constant=1.0) == [], "not far above the constant"


def _evaluated(validation: Sequence[float], training: Sequence[float]) -> LearningWarning | None:
    pairs = zip(validation, training, strict=True)
    return overfitting([Evaluated(10 * (i + 1), v, t) for i, (v, t) in enumerate(pairs)], 1.0)


def test_overfitting_names_the_step_of_the_lowest_validation_loss() -> None:
    falling = [1.0 - 0.08 * i for i in range(12)]
    found = _evaluated([0.9, 0.7, 0.6, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9], falling)
    assert found is not None
    assert found.figures == {
        "since_step": 40, "lowest_validation_loss": 0.5, "validation_loss": 0.9, "loss": falling[-1],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("validation", "training"),
    [
        ([0.9, 0.5, 0.5, 0.9, 0.5, 0.5, 0.9, 0.5, 0.9], [1 - 0.1 * i for i in range(9)]),  # jumps up and down
        ([0.9, 0.5, 0.5, 0.6, 0.7, 0.8, 0.9], [1.0, 0.5, 0.5, 0.6, 0.7, 0.8, 0.9]),  # so does the training loss
        ([0.05, 0.01, 0.01, 0.02, 0.03, 0.03, 0.03], [1 - 0.1 * i for i in range(7)]),  # small beside the constant's
        ([0.9, 0.5, 0.6, 0.7, 0.8], [1.0, 0.9, 0.8, 0.7, 0.6]),  # five evaluations are few
    ],
)
def test_what_is_no_overfitting(validation: Sequence[float], training: Sequence[float]) -> None:
    assert _evaluated(validation, training) is None


def test_training_losses_between_evaluations_are_weighted_by_rows() -> None:
    watch = LearningWatch(1.0)
    for i in range(8):
        for samples, loss in ((30, 0.4 - 0.05 * i), (10, 0.8 - 0.05 * i)):
            assert list(watch.step(_step(2 * i + 1, loss, samples=samples))) == []
        validation = abs(i - 2) * 0.1 + 0.5
        watch.evaluation(EvalRow(step=2 * i + 2, epoch=1, loss=validation, accuracy=None, samples=9))
    (found,) = watch.end()
    assert found.figures["loss"] == pytest.approx(0.5 - 0.05 * 7)
