"""What each layer really costs on this machine: for `partition: measured`."""

from __future__ import annotations

import time

import numpy as np

from coordinator.job.spec import JobSpec
from coordinator.plan.blas_threads import BlasThreads, blas_threads
from stages.arrays import Array
from stages.init import dtype_of
from stages.stage import Stage

_REPEATS = 5


def measure_layers(spec: JobSpec, rows: int) -> tuple[float, ...]:
    """Seconds of F, I and W of each layer for a micro-batch of `rows` rows: the fastest of a few runs.

    One layer at a time, so that memory for one suffices. BLAS has as many threads as a worker has.
    """
    model = spec.model_spec()
    rng, costs = np.random.default_rng(0), []
    with BlasThreads(blas_threads(spec)), np.errstate(all="ignore"):
        for k in range(len(model.layers)):
            stage = Stage(model, k, k + 1, spec.sgd())
            x = rng.standard_normal((stage.n_in, rows)).astype(dtype_of(model))
            dy = rng.standard_normal((stage.n_out, rows)).astype(dtype_of(model))
            costs.append(min(_once(stage, x, dy) for _ in range(_REPEATS)))
    return tuple(costs)


def _once(stage: Stage, x: Array, dy: Array) -> float:
    stage.begin_step(1)
    began = time.perf_counter()
    stage.forward(0, x)
    stage.backward_input(0, dy)
    stage.backward_weight(0)
    return time.perf_counter() - began
