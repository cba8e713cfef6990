"""`python -m benchmarks.cpus`: one worker with one CPU and with two, in turns.

A network of 8 layers on one stage, batch 512 in 8 micro-batches: time of a step, and how much faster two CPUs are. A
turn runs some steps with one or with two CPUs in this process; medians and minima are of all steps of all turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import closing

import numpy as np

from benchmarks import LEARNING_RATE, MOMENTUM
from coordinator.job.spec import parse_job
from coordinator.plan.blas_threads import blas_threads
from coordinator.plan.blueprint import Blueprint, make_blueprint
from coordinator.train.local import LocalWorkers
from stages.data import Dataset
from stages.orders import TrainStep, Update

_BATCH, _LAYERS = 512, 8


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--width", type=int, nargs="*", default=[64, 256, 1024])
    parser.add_argument("--micro-batches", type=int, default=8)
    options = parser.parse_args()
    for width in options.width:
        _compare(width, options.micro_batches, options.rounds)


def _compare(width: int, micro_batches: int, rounds: int) -> None:
    blueprints = {cpus: _blueprint(width, micro_batches, cpus) for cpus in (1, 2)}
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((_BATCH, width)).astype(np.float32) for _ in range(2))
    steps = max(3, min(50, 50_000 // (width * width // 64)))
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for cpus, blueprint in blueprints.items():
            times[cpus] += _turn(blueprint, Dataset(x=x, y=y), steps)
    (one, least_one), (two, least_two) = ((statistics.median(times[n]), min(times[n])) for n in (1, 2))
    threads = blas_threads(blueprints[2].spec)
    print(
        f"{width}, {_LAYERS}, {_BATCH}, {micro_batches}: one CPU {one * 1e3:.2f} ms (least {least_one * 1e3:.2f}), two "
        f"{two * 1e3:.2f} ({least_two * 1e3:.2f}) with BLAS threads: {threads}; two are {one / two:.2f} × as fast "
        f"(of the least {least_one / least_two:.2f})",
        flush=True,
    )


def _blueprint(width: int, micro_batches: int, cpus: int) -> Blueprint:
    layer = {"linear": {"units": width}}
    sgd = {"learning_rate": LEARNING_RATE, "momentum": MOMENTUM}
    document = {
        "model": {"input": [width], "layers": [*[layer, "relu"] * (_LAYERS - 1), layer], "loss": "mse"},
        "data": {"source": "given.npz"},
        "training": {
            "epochs": 1, "batch_size": _BATCH, "micro_batches": micro_batches, "optimizer": {"sgd": sgd},
        },
        "resources": {"cpus_per_worker": cpus},
    }  # fmt: skip
    return make_blueprint(parse_job(document), _BATCH)


def _turn(blueprint: Blueprint, data: Dataset, steps: int) -> list[float]:
    times = []
    with closing(LocalWorkers(blueprint, train=data)) as workers:
        for step in range(steps + 2):
            began = time.perf_counter()
            workers.submit(
                [TrainStep(step=step + 1, epoch_index=0, first=0, last=_BATCH), Update(step + 1, LEARNING_RATE)]
            ).collect()
            times.append(time.perf_counter() - began)
    return times[2:]


if __name__ == "__main__":
    main()
