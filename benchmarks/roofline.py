"""`python -m benchmarks.roofline`: how much of a step is matrix products.

The ratio is (time of the step's matrix products alone, in the same number of processes) / (time of the step on the
slowest worker). Turns alternate, so that the machine is the same for both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks import CONFIGS, WORKERS
from benchmarks.ours import OurPeer, job_for
from benchmarks.roofline_products import product_seconds
from cluster.actors.ray_session import ray_session


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--schedule", default="zb-h1")
    parser.add_argument("--group", type=int, default=1)
    options = parser.parse_args()
    config = next(config for config in CONFIGS if config.width == options.width)
    alone, steps = [], []
    with tempfile.TemporaryDirectory() as folder, ray_session(None, cpus=WORKERS, memory=0) as ray:
        spec = job_for(config, Path(folder), schedule=options.schedule, group=options.group)
        with OurPeer(ray, spec) as peer:
            for _ in range(options.rounds):
                alone.append(
                    product_seconds(
                        config.width,
                        config.layers // WORKERS,
                        config.batch // config.micro_batches,
                        config.micro_batches,
                        options.group,
                        WORKERS,
                    )
                )
                steps.append(statistics.median(peer.measure(10, warm_up=2)))
    ratios = [a / b for a, b in zip(alone, steps, strict=True)]
    print(
        f"{config}, {options.schedule}, group {options.group}: products {statistics.median(alone) * 1e3:.1f} ms, "
        f"step {statistics.median(steps) * 1e3:.1f} ms, ratio by round {', '.join(f'{r:.3f}' for r in ratios)}, "
        f"median {statistics.median(ratios):.3f} (wanted ≥ 0.90 at 1024)"
    )


if __name__ == "__main__":
    main()
