"""`python -m benchmarks.gelu`: the time of GELU for an element, and its error over all float32 values.

Times are CPU times of the thread (other work on the machine matters little), for arrays of 64 Ki and 1 Mi elements,
written into an existing array. For comparison: NumPy's exp and tanh, and SciPy's Φ, which the exact form used before.
The exhaustive part takes some minutes; `--every 64` checks only every 64th value, `--every 0` skips that part.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy.special import log_ndtr, ndtr

from stages.layers.base import EVALUATING
from stages.layers.gelu import Gelu, GeluTanh
from stages.shapes import Shape

_CHUNK = 1 << 22


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    for n in (1 << 16, 1 << 20):
        _times(n)
    if options.every:
        _exhaustive(options.every)


def _times(n: int) -> None:
    x = np.random.default_rng(0).standard_normal((256, n // 256)).astype(np.float32)
    out, dy, exact, tanh = np.empty_like(x), np.ones_like(x), Gelu(Shape(256)), GeluTanh(Shape(256))
    contestants: dict[str, Callable[[], object]] = {
        "gelu": lambda: exact.forward(x, out, (), (), EVALUATING),
        "gelu backward": lambda: exact.backward_input(x, x, (), dy, out, (), EVALUATING),
        "tanh form": lambda: tanh.forward(x, out, (), (), EVALUATING),
        "tanh form backward": lambda: tanh.backward_input(x, x, (), dy, out, (), EVALUATING),
        "np.exp": lambda: np.exp(x, out=out),
        "np.tanh": lambda: np.tanh(x, out=out),
        "scipy ndtr": lambda: ndtr(x, out=out),
    }
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(15):  # in turns, so that the machine is the same for all
        for name, run in contestants.items():
            began = time.thread_time()
            run()
            best[name] = min(best[name], (time.thread_time() - began) / n * 1e9)
    print(f"{n:,} elements, ns each: " + ", ".join(f"{name} {ns:.2f}" for name, ns in best.items()))


def _exhaustive(every: int) -> None:
    layer = Gelu(Shape(1))
    share = absolute = slope = tail = 0.0
    for first in range(0, 1 << 32, _CHUNK * every):
        last = min(first + _CHUNK * every, 1 << 32)
        x = np.arange(first, last, every, dtype=np.uint64).astype(np.uint32).view(np.float32)
        x = x[np.isfinite(x)][None]
        if not x.size:
            continue
        y, dx, wide = np.empty_like(x), np.empty_like(x), x.astype(np.float64)
        layer.forward(x, y, (), (), EVALUATING)
        layer.backward_input(x, y, (), np.ones_like(x), dx, (), EVALUATING)
        with np.errstate(over="ignore"):
            distribution = np.exp(log_ndtr(wide))
            exact = wide * distribution
            exact_slope = distribution + wide * np.exp(-wide * wide / 2) / np.sqrt(2 * np.pi)
        error = np.abs(y - exact)
        ulp = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
        share = max(share, float((error / np.maximum(2 * ulp, 1e-7)).max()))
        absolute = max(absolute, float(error[error > 2 * ulp].max(initial=0.0)))
        slope = max(slope, float(np.abs(dx - exact_slope).max()))
        below = (wide < 0) & (wide >= -13) & (np.abs(exact) > 1.2e-38)
        bound = 6e-7 + 6e-8 * wide[below] ** 2
        tail = max(tail, float((error[below] / np.abs(exact[below]) / bound).max(initial=0.0)))
    print(
        f"every {every}. float32: error {share:.2f} of (2 ulp, or 1e-7); {absolute:.2g} if it is above 2 ulp; "
        f"derivative {slope:.2g}; below zero {tail:.2f} of the relative bound 6e-7 + x² · 6e-8"
    )


if __name__ == "__main__":
    main()
