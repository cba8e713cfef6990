"""BLAS threads: as many as the job says, in one library only, and the same bits in worker and reference."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
from threadpoolctl import threadpool_info

from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.blas_threads import BlasThreads, blas_threads
from coordinator.plan.blueprint import make_blueprint
from coordinator.train.local import LocalWorkers
from coordinator.train.parity import compare, train_pipeline
from coordinator.train.reference import train_reference
from stages.arrays import Array
from stages.data import Dataset
from stages.products import add_product, multiply


def _job(width: int, cpus: int, stages: int = 1, schedule: str = "1f1b") -> JobSpec:
    layer: dict[str, Any] = {"linear": {"units": width}}
    return parse_job(
        {
            "model": {"input": [width], "layers": [layer, "gelu", layer, "relu", layer], "loss": "mse"},
            "data": {"source": "given.npz"},
            "training": {
                "epochs": 1, "batch_size": 250, "micro_batches": 4,
                "optimizer": {"sgd": {"learning_rate": 0.01, "momentum": 0.9}},
            },
            "pipeline": {"stages": stages, "schedule": schedule},
            "resources": {"cpus_per_worker": cpus},
        }
    )  # fmt: skip


def _threads() -> tuple[int, int]:
    """Return the threads of NumPy's BLAS and of SciPy's."""
    libraries = {Path(entry["filepath"]).parent: entry["num_threads"] for entry in threadpool_info()}
    packages = Path(scipy.__file__).parents[1]
    if not {packages / "numpy.libs", packages / "scipy.libs"} <= libraries.keys():
        pytest.skip("here NumPy and SciPy do not bring a BLAS each")
    return libraries[packages / "numpy.libs"], libraries[packages / "scipy.libs"]


@pytest.mark.parametrize(("width", "cpus", "threads"), [(64, 1, 1), (64, 2, 1), (256, 1, 1), (256, 2, 2)])
def test_small_products_get_one_thread_and_large_ones_the_workers_cpus(width: int, cpus: int, threads: int) -> None:
    assert blas_threads(_job(width, cpus)) == threads


@pytest.mark.parametrize(("cpus", "expected"), [(1, (1, 1)), (2, (1, 2))])
def test_only_one_library_has_several_threads_while_workers_live(cpus: int, expected: tuple[int, int]) -> None:
    """With two pools, one always spins on the cores that the other needs: 116 ms a step instead of 22."""
    x = np.ones((250, 256), np.float32)
    with BlasThreads(1):
        before = _threads()
        with contextlib.closing(LocalWorkers(make_blueprint(_job(256, cpus), 250), train=Dataset(x=x, y=x))):
            assert _threads() == expected
        assert _threads() == before


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "zb-h1"])
@pytest.mark.parametrize("stages", [1, 3])
@pytest.mark.parametrize("width", [40, 256])
def test_workers_with_two_cpus_train_bitwise_as_the_reference_does(schedule: str, stages: int, width: int) -> None:
    spec = _job(width, 2, stages, schedule)
    rng = np.random.default_rng(5)
    x, y = (rng.standard_normal((250, width)).astype(np.float32) for _ in range(2))
    data = Dataset(x=x, y=y)
    with contextlib.closing(LocalWorkers(make_blueprint(spec, 250), train=data)) as workers:
        found = train_pipeline(make_blueprint(spec, 250), workers, data, steps=1)
    assert compare(found, train_reference(spec, data, 1)).equal


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("m", "k", "n"), [(3, 4, 5), (1, 4, 1), (4, 1, 3), (1, 1, 1), (70, 33, 9)])
def test_products_are_those_of_numpy_whatever_library_makes_them(
    m: int, k: int, n: int, dtype: type[np.floating[Any]], threads: int
) -> None:
    rng = np.random.default_rng(0)
    a: Array = rng.normal(size=(m, k)).astype(dtype)
    b: Array = rng.normal(size=(k, n)).astype(dtype)
    out: Array = np.full((m, n), np.nan, dtype)
    with BlasThreads(threads):
        multiply(a, b, out)
        np.testing.assert_allclose(out, a @ b, rtol=1e-4, atol=1e-5)
        multiply(np.ascontiguousarray(a.T).T, b, out)
        np.testing.assert_allclose(out, a @ b, rtol=1e-4, atol=1e-5)
        add_product(a, np.ascontiguousarray(b.T).T, out, accumulate=True)
        np.testing.assert_allclose(out, 2 * (a @ b), rtol=1e-4, atol=1e-5)
        add_product(a, np.ascontiguousarray(b.T).T, out, accumulate=False)
        np.testing.assert_allclose(out, a @ b, rtol=1e-4, atol=1e-5)
