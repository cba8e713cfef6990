"""Jobs of flat layers give the same weights as before layers became operations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.coordinator.weights_before import JOBS, train

KEPT = Path(__file__).parent / "golden" / "weights_before.npz"
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
"""BLAS on another machine adds a product's terms in another order. On one machine the weights are the same to the
bit."""


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("job", JOBS)
def test_a_flat_job_gives_the_weights_that_it_always_gave(job: str, precision: str) -> None:
    with np.load(KEPT) as kept:
        expected = {key.rpartition("|")[2]: kept[key] for key in kept if key.startswith(f"{job}|{precision}|")}
    found = train(job, precision)
    assert list(found) == list(expected)
    for name, value in found.items():
        assert value.dtype == expected[name].dtype
        np.testing.assert_allclose(value, expected[name], rtol=TOLERANCE[precision], atol=TOLERANCE[precision])
