"""Measures how many tokens a second a network generates: with kept keys and values, and with the whole text each time.

    python -m benchmarks.generate [--blocks 4 --units 128 --heads 4 --positions 64 --vocabulary 96]

The two ways take turns, and the median of five is shown, for 60 tokens after a prompt of 4, on one thread. After the
last position the text moves on, and all of it is computed again for each token; the table has a row for that.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from coordinator.job.spec import parse_job
from coordinator.plan.blas_threads import BlasThreads
from coordinator.train.continuation import Continuation
from coordinator.train.inference import infer
from stages.arrays import Array
from stages.stage import Stage


def main() -> None:
    """Run the measurements and print a table."""
    arguments = argparse.ArgumentParser()
    for name, default in (("blocks", 4), ("units", 128), ("heads", 4), ("positions", 64), ("vocabulary", 96)):
        arguments.add_argument(f"--{name}", type=int, default=default)
    given = arguments.parse_args()
    spec = parse_job(
        {
            "model": {
                "input": [given.positions],
                "vocabulary": given.vocabulary,
                "loss": "cross_entropy",
                "layers": [
                    {"embedding": {"units": given.units}},
                    "positions",
                    {"transformer": {"heads": given.heads, "times": given.blocks, "bias": False}},
                    "layer_norm",
                    {"linear": {"units": given.vocabulary, "bias": False, "tied_to": 0}},
                ],
            },
            "data": {"source": "stdlib", "block": given.positions},
            "training": {"steps": 1, "batch_size": 1, "optimizer": {"sgd": {"learning_rate": 0.1}}},
        }
    )
    model = spec.model_spec()
    stage = Stage(model, 0, len(model.network.ops), spec.optimizer()).parameters
    parameters = stage.named(stage.values)
    n = given.positions

    def whole(tokens: list[int]) -> Array:
        window = np.zeros((1, n), dtype=np.int64)
        seen = tokens[-n:]
        window[0, : len(seen)] = seen
        return next(infer(model, parameters.__getitem__, window, 1))[:, len(seen) - 1]

    for what, start in (("within the positions", 4), ("behind the last position", n)):
        speeds: dict[str, list[float]] = {"whole text": [], "continued": []}
        for _ in range(5):
            row = Continuation(model, parameters.__getitem__)
            speeds["whole text"].append(_speed(whole, start, n - 4))
            speeds["continued"].append(_speed(row.outputs, start, n - 4))
        told = ", ".join(f"{name} {statistics.median(found):,.0f} tokens/s" for name, found in speeds.items())
        print(f"{what}: {told}")


def _speed(outputs: Callable[[list[int]], Array], start: int, tokens: int) -> float:
    text = [1] * start
    began = time.perf_counter()
    for _ in range(tokens):
        text.append(int(outputs(text).argmax()))
    return tokens / (time.perf_counter() - began)


if __name__ == "__main__":
    with BlasThreads(1):
        main()
