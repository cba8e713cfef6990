from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from stages.arrays import Array
from stages.optim import Sgd
from stages.spec import SgdSpec


def _by_the_formula(spec: SgdSpec, value: Array, gradients: Sequence[Array], scale: float) -> Array:
    """torch.optim.SGD's documented algorithm, one line each, on whole vectors."""
    velocity = np.zeros_like(value)
    for gradient in gradients:
        g = scale * gradient + spec.weight_decay * value
        velocity = spec.momentum * velocity + g
        step = (g + spec.momentum * velocity if spec.nesterov else velocity) if spec.momentum else g
        value = value - spec.learning_rate * step
    return value


@pytest.mark.parametrize(
    "spec",
    [
        SgdSpec(learning_rate=0.1),
        SgdSpec(learning_rate=0.1, momentum=0.9),
        SgdSpec(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        SgdSpec(learning_rate=0.1, weight_decay=0.5),
    ],
)
@pytest.mark.parametrize("size", [3, 70_000])
def test_update_is_the_formula(spec: SgdSpec, size: int) -> None:
    rng = np.random.default_rng(0)
    value, gradients = rng.normal(size=size), [rng.normal(size=size) for _ in range(4)]
    expected = _by_the_formula(spec, value.copy(), gradients, 0.5)
    slot = np.empty(size)
    sgd = Sgd(spec, value, slot)
    for gradient in gradients:
        slot[:] = gradient
        sgd.update(spec.learning_rate, 0.5)
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-14)
