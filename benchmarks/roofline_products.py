"""Runs only the matrix products of a training step, at the same time in as many processes as the step has workers.

Each process has its own weights for each layer and goes through a step's products in the order of training: for a
group of micro-batches, forward and input gradient of each, then the weight gradients of the whole group, added to the
gradient by BLAS itself. The rest of a step's time is the cost of everything besides the products.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np
from scipy.linalg import blas

from benchmarks.processes import Processes
from stages.arrays import Array, aligned_empty

START_TIMEOUT_S = 60.0
STEP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Products:
    """The shapes of one worker's products in a step. `first`: it holds the first layer of the network, which needs no
    input gradient."""

    width: int
    layers: int
    rows: int
    micro_batches: int
    group: int
    first: bool

    @property
    def flops(self) -> int:
        """Operations of one step's products."""
        products = 3 * self.layers - self.first
        return 2 * self.width**2 * self.rows * self.micro_batches * products


def product_seconds_by_process(
    *,
    width: int,
    layers_per_worker: int,
    rows_per_micro_batch: int,
    micro_batches: int,
    group: int,
    processes: int,
    holds_first_layer: bool = True,
    steps: int = 10,
) -> list[float]:
    """Return the median seconds of a step's products in each of `processes` processes that run at the same time.

    The first of them leaves out the input gradient of its first layer, unless `holds_first_layer` is false.
    """
    command = [sys.executable, "-m", "benchmarks.roofline_products", "--products"]
    jobs = [
        Products(
            width=width,
            layers=layers_per_worker,
            rows=rows_per_micro_batch,
            micro_batches=micro_batches,
            group=group,
            first=holds_first_layer and rank == 0,
        )
        for rank in range(processes)
    ]
    title = f"products of {width} × {width}"
    with Processes(title, [[*command, json.dumps(asdict(job))] for job in jobs], {}) as workers:
        workers.answers(START_TIMEOUT_S)
        seconds = workers.ask(str(steps), START_TIMEOUT_S + STEP_TIMEOUT_S * steps)
    return [statistics.median(of_process) for of_process in seconds]


def product_seconds(
    width: int,
    layers_per_worker: int,
    rows_per_micro_batch: int,
    micro_batches: int,
    group: int,
    processes: int,
    *,
    holds_first_layer: bool = True,
    steps: int = 10,
) -> float:
    """Return the median seconds of a step's products in the slowest process."""
    return max(
        product_seconds_by_process(
            width=width,
            layers_per_worker=layers_per_worker,
            rows_per_micro_batch=rows_per_micro_batch,
            micro_batches=micro_batches,
            group=group,
            processes=processes,
            holds_first_layer=holds_first_layer,
            steps=steps,
        )
    )


class Worker:
    """The arrays of one process, and its step."""

    def __init__(self, products: Products) -> None:
        self._products = products
        width, rows, group = products.width, products.rows, products.group
        rng = np.random.default_rng(0)

        def drawn(columns: int, scale: float) -> Array:
            array = aligned_empty((width, columns), np.dtype(np.float32))
            array[...] = rng.standard_normal(array.shape, dtype=np.float32) * scale
            return array

        layers = range(products.layers)
        self._weights = [drawn(width, width**-0.5) for _ in layers]
        self._gradients = [np.zeros_like(weight) for weight in self._weights]
        # the input of each layer and the output of the last, and their gradients, by micro-batch of a group
        self._values = [[drawn(rows, 1.0) for _ in range(products.layers + 1)] for _ in range(group)]
        self._slopes = [[drawn(rows, 1e-3) for _ in range(products.layers + 1)] for _ in range(group)]
        # the same arrays side by side, as the weight gradient of a group reads them
        self._wide_values = [drawn(group * rows, 1.0) for _ in layers]
        self._wide_slopes = [drawn(group * rows, 1e-3) for _ in layers]

    def step(self) -> None:
        """Compute all products of one step, in groups; the last group may be smaller."""
        products = self._products
        for start in range(0, products.micro_batches, products.group):
            members = min(products.group, products.micro_batches - start)
            for values, slopes in zip(self._values[:members], self._slopes[:members], strict=True):
                for layer, weight in enumerate(self._weights):
                    np.matmul(weight, values[layer], out=values[layer + 1])
                for layer in range(products.layers - 1, products.first - 1, -1):
                    np.matmul(self._weights[layer].T, slopes[layer + 1], out=slopes[layer])
            for layer in reversed(range(products.layers)):
                self._add_weight_gradient(layer, members)

    def _add_weight_gradient(self, layer: int, members: int) -> None:
        """∂ℓ/∂Ω += ∂ℓ/∂f hᵀ by BLAS, on the transposes, which are Fortran-contiguous."""
        value, slope = self._values[0][layer], self._slopes[0][layer + 1]
        if members > 1:
            value, slope = self._wide_values[layer], self._wide_slopes[layer]
        if 1 < members < self._products.group:
            shape = (self._products.width, members * self._products.rows)
            value, slope = (wide.ravel()[: shape[0] * shape[1]].reshape(shape) for wide in (value, slope))
        target = self._gradients[layer].T
        added = blas.sgemm(1.0, value.T, slope.T, trans_a=1, beta=1.0, c=target, overwrite_c=1)
        assert added is target, "BLAS worked on a copy"


def serve(products: Products) -> None:
    """Run as one process: for each line with a number of steps on stdin, print the seconds of each step."""
    worker = Worker(products)
    worker.step()
    print("[]", flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            worker.step()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A process of product_seconds.")
    parser.add_argument("--products", required=True)
    serve(Products(**json.loads(parser.parse_args().products)))
