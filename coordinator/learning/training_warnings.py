"""Decides from figures of the training which warnings it deserves. `watch.py` collects the figures."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median
from typing import NamedTuple

from coordinator.learning.warning import LearningWarning
from coordinator.texts import number, some
from stages.living_units import DeadUnits

_NO_BETTER = 0.99
"""A loss above this share of the constant answer's is no better than it."""
_NO_LONGER_FALLS = 0.98
_RISE, _RISE_OF_SCALE = 0.10, 0.05
"""A validation loss rises if the rise is this share of its lowest value, and that share of the constant's loss."""
_TRAINING_FELL = 0.97
_SMOOTH = 3
_DEAD = 0.8
_EXPLODED, _VANISHED = 1e3, 1e-6
_JUMP, _JUMP_OF_START = 100.0, 10.0


class Losses(NamedTuple):
    """The losses per row of neighbouring steps, the last of which is `last`, and the lowest validation loss so far."""

    values: Sequence[float]
    last: int
    validation: float | None = None


class Evaluated(NamedTuple):
    """An evaluation after `step`: the validation loss, and the mean training loss since the evaluation before."""

    step: int
    validation: float
    training: float


def loss_of_constant(losses: Losses, constant: float | None) -> LearningWarning | None:
    """Warn if the second half of these losses is no better than `constant`, the loss of always giving the same answer,
    and falls no longer."""
    values, validation = losses.values, losses.validation
    if constant is None or not constant > 0 or len(values) < 2:
        return None
    before, after = fmean(values[: len(values) // 2]), fmean(values[len(values) // 2 :])
    if after < _NO_BETTER * constant or after < _NO_LONGER_FALLS * before:
        return None
    if validation is not None and validation < _NO_BETTER * constant:
        return None
    first = losses.last - len(values) + 1
    return LearningWarning(
        code="loss_of_constant",
        text=(
            f"the mean loss of steps {first:,} to {losses.last:,}, {number(fmean(values))}, is no better than "
            f"{number(constant)}, the loss of always giving the same answer: the network has learnt nothing yet; check "
            "`data.target` and the inputs' scale, and try a learning rate ten times larger, then ten times smaller"
        ),
        figures={"loss": fmean(values), "constant_loss": constant, "first_step": first, "step": losses.last},
    )


def overfitting(evaluations: Sequence[Evaluated], scale: float | None) -> LearningWarning | None:
    """Warn if the validation loss has risen since its lowest value while the training loss fell. Means of three
    evaluations are compared. `scale` is the loss of a constant answer, None if that is not known."""
    if len(evaluations) < 2 * _SMOOTH:
        return None
    windows = range(len(evaluations) - _SMOOTH + 1)
    validation = [fmean(one.validation for one in evaluations[k : k + _SMOOTH]) for k in windows]
    training = [fmean(one.training for one in evaluations[k : k + _SMOOTH]) for k in windows]
    lowest = min(windows, key=validation.__getitem__)
    rise = validation[-1] - validation[lowest]
    whole = evaluations[0].validation if scale is None or not scale > 0 else scale
    if rise < _RISE * validation[lowest] or rise < _RISE_OF_SCALE * whole:
        return None
    if training[-1] > _TRAINING_FELL * training[lowest]:
        return None
    if min(one.validation for one in evaluations[-_SMOOTH:]) < validation[lowest] + rise / 2:
        return None  # it jumps up and down
    best = min(evaluations[lowest : lowest + _SMOOTH], key=lambda one: one.validation)
    last = evaluations[-1]
    return LearningWarning(
        code="overfitting",
        text=(
            f"since step {best.step:,} the validation loss has risen from {number(best.validation)} to "
            f"{number(last.validation)} while the training loss fell to {number(last.training)}: the network learns "
            "the rows by heart; stop earlier (fewer `training.epochs`), or use fewer units, `dropout`, `weight_decay` "
            "or more rows"
        ),
        figures={
            "since_step": best.step, "lowest_validation_loss": best.validation,
            "validation_loss": last.validation, "loss": last.training,
        },
    )  # fmt: skip


def dead_units(found: Sequence[DeadUnits], step: int) -> LearningWarning | None:
    """Warn if almost all units of a layer passed no gradient for any row."""
    dead = [one for one in found if one.dead >= _DEAD * one.units]
    if not dead:
        return None
    layers = some([f"{one.dead:,} of {one.units:,} in layer {one.layer}" for one in dead])
    return LearningWarning(
        code="dead_units",
        text=(
            f"units are dead at step {step:,}: {layers} pass no gradient for any row, so the weights before them "
            "learn nothing; scale the inputs, lower the learning rate, or use `leaky_relu` or `gelu`"
        ),
        figures={"step": step, "layers": [one._asdict() for one in dead]},
    )


def exploding_gradients(
    first: Sequence[float], recent: Sequence[float], step: int, losses: tuple[float, float]
) -> LearningWarning | None:
    """Warn if all `recent` norms are far above the `first` ones of the run, and the loss (`losses`: at first, recently)
    has not fallen."""
    usual, least = median(first), min(recent)
    if not usual > 0 or least < _EXPLODED * usual or losses[1] < losses[0]:
        return None
    return LearningWarning(
        code="exploding_gradients",
        text=(
            f"the gradient norm has grown from {number(usual)} to {number(median(recent))} at step {step:,}: the "
            "training diverges; lower the learning rate, or limit the norm with `training.clip_norm: 1.0`"
        ),
        figures={"first_norm": usual, "norm": median(recent), "step": step},
    )


def vanishes(norms: Sequence[float]) -> bool:
    """Whether the norm of the first of these layers' gradients is almost nothing beside the largest."""
    return len(norms) > 1 and max(norms) > 0 and norms[0] < _VANISHED * max(norms)


def vanishing_gradients(layers: Sequence[str], norms: Sequence[float], step: int) -> LearningWarning:
    """Return the warning for norms that `vanishes`; `layers` are their layers' names."""
    count = next(k for k, norm in enumerate(norms) if norm >= _VANISHED * max(norms))
    largest = max(range(len(norms)), key=norms.__getitem__)
    return LearningWarning(
        code="vanishing_gradients",
        text=(
            f"almost no gradient reaches {'layer' if count == 1 else 'layers'} {some(list(layers[:count]))}: its norm "
            f"in layer {layers[0]} is {number(norms[0])} at step {step:,}, in layer {layers[largest]} "
            f"{number(norms[largest])}; use `layer_norm`, `residual` or fewer layers, and `gelu` or `relu` rather than "
            "`sigmoid` or `tanh`"
        ),
        figures={"layers": list(layers[:count]), "norm": norms[0], "largest_norm": norms[largest], "step": step},
    )


def loss_jump(loss: float, before: Sequence[float], start: float, step: int) -> LearningWarning | None:
    """Warn if a loss is far above those of the steps `before`, and above `start`, that of the first step or of a
    constant answer."""
    if not before or loss < _JUMP_OF_START * start:
        return None
    usual = median(before)
    if loss < _JUMP * usual:
        return None
    return LearningWarning(
        code="loss_jump",
        text=(
            f"the loss jumped to {number(loss)} in step {step:,}; it was about {number(usual)} before: try a third of "
            "the learning rate, or `training.clip_norm: 1.0`, and check the scale of inputs and targets"
        ),
        figures={"loss": loss, "before": usual, "step": step},
    )
