"""`python -m benchmarks.memory`: peak bytes of each worker against the prediction of `plan`; 1F1B against GPipe.

The measured bytes are the process's peak resident memory minus its memory before its stages were built.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import Config
from benchmarks.ours import OurPeer, job_for
from cluster.actors.ray_session import ray_session
from cluster.data.sources import load_data
from coordinator.plan.estimate import estimate
from coordinator.texts import size

_CONFIG = Config(width=1024, layers=8, batch=2048, micro_batches=8)
_STAGES = 4


def main() -> None:
    """Run the jobs and print a table."""
    print("| schedule | worker | measured | predicted | ratio | saved activations at peak / GPipe's | allowed |")
    print("|---|---|---|---|---|---|---|")
    gpipe: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as folder, ray_session(None, cpus=_STAGES, memory=0) as ray:
        for schedule in ("gpipe", "1f1b", "zb-h1"):
            spec = job_for(_CONFIG, Path(folder), schedule=schedule, group=1, stages=_STAGES)
            with OurPeer(ray, spec) as peer:
                last = peer.run(4)[-1]
                saved = {s: n for report in last.reports for s, n in report.saved_bytes.items()}
                predicted = estimate(peer.blueprint, data_bytes=load_data(spec).nbytes, validation_rows=1)
                measured = [memory["peak_above_baseline"] for memory in peer.workers.memory()]
            for worker, found in enumerate(measured):
                told, m = predicted.workers[worker].total, _CONFIG.micro_batches
                if schedule == "gpipe":
                    gpipe[worker] = saved[worker]
                allowed = f"{min(m, _STAGES - worker) / m:.3f}" if schedule == "1f1b" else ""
                print(
                    f"| {schedule} | {worker} | {size(found)} | {size(told)} | {found / told:.3f} | "
                    f"{saved[worker] / gpipe[worker]:.3f} | {allowed} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
