from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from stages.arrays import Array
from stages.optimizers import Adam, Lion, Sgd
from stages.optimizers.base import BLOCK, Part
from stages.spec import AdamSpec, LionSpec, SgdSpec


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
    value, gradient = rng.normal(size=80_000), np.empty(80_000)
    expected, m = value.copy(), np.zeros(80_000)
    lion = Lion(spec, value, gradient, [Part(0, 70_000, True), Part(70_000, 80_000, False)])
    decay = np.where(np.arange(80_000) < 70_000, 0.5, 0.0)
    for step in range(1, 4):
        g = rng.normal(size=80_000)
        gradient[:] = g
        lion.update(step, 0.1)
        expected = expected - 0.1 * (np.sign(0.9 * m + 0.1 * g) + decay * expected)
        m = 0.99 * m + 0.01 * g
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("decoupled", [True, False])
def test_a_part_is_updated_with_the_same_bits_whatever_lies_beside_it(decoupled: bool) -> None:
    """Vectors that do not decay lie between matrices that do; one of these goes over the edge of a block."""
    spec = AdamSpec(learning_rate=0.1, weight_decay=0.5, decoupled=decoupled)
    sizes = [16, 100, 16, BLOCK, 16]
    edges = np.cumsum([0, *sizes]).tolist()
    parts = [Part(a, b, i % 2 == 1) for i, (a, b) in enumerate(pairwise(edges))]
    rng = np.random.default_rng(2)
    values, gradients = (rng.standard_normal(edges[-1], dtype=np.float32) for _ in range(2))

    def updated(some: Sequence[Part], value: Array, gradient: Array) -> Array:
        adam = Adam(spec, value, gradient, some)
        for step in (1, 2):
            adam.update(step, 0.1, 0.5)
        return value

    together = updated(parts, values.copy(), gradients.copy())
    for part in parts:
        own = slice(part.start, part.stop)
        alone = updated([Part(0, part.stop - part.start, part.decays)], values[own].copy(), gradients[own].copy())
        np.testing.assert_array_equal(together[own], alone)


def test_an_update_makes_as_many_calls_as_there_are_blocks_of_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [Part(16 * i, 16 * i + 16, i % 2 == 1) for i in range(50)]
    adam, blocks = Adam(AdamSpec(learning_rate=0.1), np.zeros(800), np.ones(800), parts), list[slice]()
    monkeypatch.setattr(adam, "_update", lambda block, *_: blocks.append(block))
    adam.update(1, 0.1)
    assert blocks == [slice(0, 800)]
