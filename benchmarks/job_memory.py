"""`python -m benchmarks.job_memory JOB.yaml 1,2,4 [STEPS]`: peak bytes of each worker of a job against its plan.

The job trains STEPS steps (3 by default) on each number of stages, and is not evaluated. The measured bytes are the
process's peak resident memory minus its memory before its stages were built.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from cluster.actors.ray_session import ray_session
from cluster.actors.ray_workers import RayWorkers
from cluster.checkpoints.given_weights import check_weights
from cluster.data.sources import JobData, load_data
from coordinator.job.spec import load_job
from coordinator.plan.blueprint import make_blueprint
from coordinator.plan.estimate import estimate
from coordinator.texts import size
from coordinator.train.rows import TrainedStep
from coordinator.train.trainer import Trainer


def main(path: str, stages: str, steps: int = 3) -> None:
    """Run the job on each number of stages and print a table."""
    counts = [int(count) for count in stages.split(",")]
    data = load_data(load_job(Path(path), stages=1, partition="auto"))
    print("| stages | worker | measured | predicted | ratio | seconds a step |")
    print("|---|---|---|---|---|---|")
    with ray_session(None, cpus=max(counts), memory=0) as ray:
        for count in counts:
            predicted, measured, seconds = _measure(ray, data, count, steps)
            for worker, (found, told) in enumerate(zip(measured, predicted, strict=True)):
                pace = f"{seconds:.1f}" if worker == 0 else ""
                ratio = f"{found / told:.3f}"
                print(f"| {count} | {worker} | {size(found)} | {size(told)} | {ratio} | {pace} |", flush=True)


def _measure(ray: Any, data: JobData, stages: int, steps: int) -> tuple[Sequence[int], Sequence[int], float]:
    """Return the predicted and the measured bytes of each worker, and the seconds of the fastest step but the first."""
    rows, spec = len(data.train), data.spec.replace(stages=stages)
    blueprint = make_blueprint(spec, rows)
    plan = estimate(blueprint, data_bytes=data.nbytes + data.reading_bytes, validation_rows=1)
    predicted = [worker.total for worker in plan.workers]
    workers = RayWorkers(ray, blueprint, fingerprint=data.fingerprint(), weights=check_weights(spec))
    with contextlib.closing(workers):
        trained = list(Trainer(blueprint, workers, train_rows=rows, max_steps=steps).rows())
        measured = [memory["peak_above_baseline"] for memory in workers.memory()]
    ends = [max(report.account.ended for report in row.reports) for row in trained if isinstance(row, TrainedStep)]
    return predicted, measured, min(after - before for before, after in pairwise(ends))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
