from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from stages.arrays import Array
from stages.optimizers import Lion, Sgd
from stages.optimizers.base import Part
from stages.spec import LionSpec, SgdSpec


def _by_the_formula(spec: SgdSpec, value: Array, gradients: Sequence[Array], scale: float) -> Array:
    """The algorithm as torch.optim.SGD documents it, line by line, on whole vectors."""
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
    sgd = Sgd(spec, value, slot, [Part(0, size, True)])
    for step, gradient in enumerate(gradients, start=1):
        slot[:] = gradient
        sgd.update(step, spec.learning_rate, 0.5)
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-14)


def test_lion_is_the_paper_s_algorithm_and_vectors_do_not_decay() -> None:
    spec, rng = LionSpec(learning_rate=0.1, betas=(0.9, 0.99), weight_decay=0.5), np.random.default_rng(1)
    value, gradient = rng.normal(size=40_000), np.empty(40_000)
    expected, m = value.copy(), np.zeros(40_000)
    lion = Lion(spec, value, gradient, [Part(0, 39_000, True), Part(39_000, 40_000, False)])
    decay = np.where(np.arange(40_000) < 39_000, 0.5, 0.0)
    for step in range(1, 4):
        g = rng.normal(size=40_000)
        gradient[:] = g
        lion.update(step, 0.1)
        expected = expected - 0.1 * (np.sign(0.9 * m + 0.1 * g) + decay * expected)
        m = 0.99 * m + 0.01 * g
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-14)
