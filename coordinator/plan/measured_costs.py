"""Measures the cost of each layer on this machine, for `partition: measured`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from coordinator.job.spec import JobSpec
from coordinator.plan.blas_threads import BlasThreads, blas_threads
from coordinator.plan.partition import ActionCosts
from coordinator.timing.machine_times import NO_SEAM, Curve, MachineTimes, PartTimes
from stages.arrays import Array
from stages.init import dtype_of
from stages.network import Network
from stages.stage import Stage

_REPEATS = 5


def measure_layers(spec: JobSpec, rows: int) -> tuple[ActionCosts, ...]:
    """Return the seconds of F, I and W of each layer for a micro-batch of `rows` rows: each the fastest of a few runs.

    Only one layer at a time is in memory. BLAS has as many threads as a worker has.
    """
    model = spec.model_spec()
    rng, costs = np.random.default_rng(0), list[ActionCosts]()
    with BlasThreads(blas_threads(spec)), np.errstate(all="ignore"):
        network = model.network
        for k in range(len(network.ops)):
            stage = Stage(model, k, k + 1, spec.optimizer())
            x = random_message(rng, network.crossing(k), network, rows, dtype_of(model))
            dy = random_message(rng, network.gradients(k + 1), network, rows, dtype_of(model))
            costs.append(ActionCosts(*map(min, zip(*(_once(stage, x, dy) for _ in range(_REPEATS)), strict=True))))
    return tuple(costs)


def with_layers(times: MachineTimes, costs: Sequence[ActionCosts], rows: int) -> MachineTimes:
    """Return the times with the seconds of layers that `measure_layers` measured."""
    parts = {}
    for k, cost in enumerate(costs):
        f, i, w = (Curve(((float(rows), seconds),)) for seconds in cost)
        parts[k, k + 1] = PartTimes(f, i, w, w)
    return replace(times, source="measured", parts=parts, seam=NO_SEAM)


def layers_costs(times: MachineTimes, rows: int) -> list[ActionCosts]:
    """Return the seconds of F, I and W of each layer for a micro-batch of `rows` rows."""
    parts = [times.parts[part] for part in sorted(times.parts) if part[1] - part[0] == 1]
    return [ActionCosts(*(curve(rows) for curve in part[:3])) for part in parts]


def random_message(
    rng: np.random.Generator, values: Sequence[int], network: Network, rows: int, dtype: np.dtype[Any]
) -> Any:
    """Return a message of these values with random numbers or tokens."""
    shapes = [network.shapes[v] for v in values]
    size = sum(shape.features for shape in shapes), rows * (shapes[0].columns if shapes else 1)
    if shapes and shapes[0].vocabulary:
        return rng.integers(0, shapes[0].vocabulary, size=size, dtype=f"i{dtype.itemsize}")
    return rng.standard_normal(size).astype(dtype)


def _once(stage: Stage, x: Array, dy: Array) -> tuple[float, float, float]:
    stage.begin_step(1)
    began = time.perf_counter()
    stage.forward(0, x)
    forward = time.perf_counter()
    stage.backward_input(0, dy)
    backward = time.perf_counter()
    stage.backward_weight(0)
    return forward - began, backward - forward, time.perf_counter() - backward
