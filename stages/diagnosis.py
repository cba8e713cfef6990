"""Finds where a value first became NaN or infinite, at the cost of one dot product an action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

import numpy as np

from stages.actions import Action
from stages.arrays import Array
from stages.errors import NonFinite
from stages.layers.base import Moment
from stages.network import Op, name_order
from stages.stage import Stage

_ADVICE = "try a lower learning rate, clip_norm, or float64"


def check_output(stage: Stage, x: Array, y: Array, at: Moment, when: str, action: Action) -> None:
    """Raise NonFinite, naming the first layer, if the stage's output `y` for input `x` has NaN or infinity."""
    flat = y.reshape(-1)  # see `is_finite`, which is not called because this happens in every action
    if isfinite(flat.dot(flat)) or is_finite(y):
        return
    layer = stage.first_non_finite_layer(x, at)
    raise NonFinite(
        f"the output of layer {layer} became NaN or infinite in {when}, "
        f"micro-batch {action.micro_batch} ({action}); {_ADVICE}"
    )


def check_gradient(stage: Stage, dx: Array, step: int, action: Action) -> None:
    """Raise NonFinite, naming the first layer on the way back, if the input gradient has NaN or infinity."""
    flat = dx.reshape(-1)
    if isfinite(flat.dot(flat)) or is_finite(dx):
        return
    layer = stage.first_non_finite_gradient(action.micro_batch)
    raise NonFinite(
        f"the gradient ∂ℓ/∂f of layer {layer} became NaN or infinite in step {step}, "
        f"micro-batch {action.micro_batch} ({action}); {_ADVICE}"
    )


def check_gradients_total(squared_norms: Mapping[str, float], step: int, ops: Sequence[Op]) -> None:
    """Raise NonFinite if a parameter's gradient, summed over micro-batches, has NaN or infinity."""
    if all(map(isfinite, squared_norms.values())):
        return
    for name, value in sorted(squared_norms.items(), key=lambda item: name_order(item[0])[0], reverse=True):
        if not isfinite(value):
            raise NonFinite(
                f"the gradient of {_parameter(name, ops)} became NaN or infinite in step {step}, "
                f"in the sum over micro-batches; {_ADVICE}"
            )


def _parameter(name: str, ops: Sequence[Op]) -> str:
    """`3.weight`, or `2.3.0.1.0.weight (transformer block 3, attention, linear)`."""
    owner = next((op for op in ops if op.name == name.rpartition(".")[0]), None)
    place = str(owner).partition(" ")[2]
    return f"{name} {place}" if place and owner is not None else name


def is_finite(array: Array) -> bool:
    """Whether every element is finite. A finite sum of squares proves it; as squares may overflow, a sum that is not
    finite proves nothing, and the elements are checked."""
    flat = array.reshape(-1)
    return isfinite(flat.dot(flat)) or bool(np.isfinite(array).all())
