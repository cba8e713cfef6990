"""Pipetrain as one of the peers: a job on real Ray actors, measured a few steps at a time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from benchmarks import LEARNING_RATE, MOMENTUM, WORKERS, Config
from cluster.actors.ray_workers import RayWorkers
from cluster.data.sources import load_data
from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.blueprint import make_blueprint
from coordinator.train.rows import TrainedStep
from coordinator.train.trainer import Trainer

_BATCHES = 2  # in the data file, which is one epoch
_MANY_EPOCHS = 1_000_000


def job_for(config: Config, folder: Path, *, schedule: str, group: int, stages: int = WORKERS) -> JobSpec:
    """Return the configuration as a job. Its random data is written to `folder` once."""
    rows = _BATCHES * config.batch
    source = folder / f"{config.width}-{config.batch}.npz"
    if not source.exists():
        rng = np.random.default_rng(0)
        x, y = (rng.standard_normal((rows + 1, config.width), dtype=np.float32) for _ in range(2))
        np.savez(source, x=x, y=y)
    layers: list[object] = [{"linear": {"units": config.width}}, "relu"] * config.layers
    return parse_job(
        {
            "name": f"mlp-{config.width}",
            "model": {"input": [config.width], "layers": layers[:-1], "loss": "mse"},
            "data": {"source": str(source), "validation": 1 / (rows + 1)},  # one row: it is never evaluated
            "training": {
                "epochs": _MANY_EPOCHS,
                "batch_size": config.batch,
                "micro_batches": config.micro_batches,
                "optimizer": {"sgd": {"learning_rate": LEARNING_RATE, "momentum": MOMENTUM}},
            },
            "pipeline": {"stages": stages, "schedule": schedule, "weight_grad_group": group},
        }
    )


class OurPeer:
    """A job's actors. They stay alive between measurements, and then block in a call that waits for orders."""

    def __init__(self, ray: Any, spec: JobSpec) -> None:
        data = load_data(spec)
        self._rows = len(data.train)
        self.blueprint = make_blueprint(spec, self._rows)
        self.workers = RayWorkers(ray, self.blueprint, fingerprint=data.fingerprint())

    def measure(self, steps: int, warm_up: int = 1) -> list[float]:
        """Return the seconds of each of `steps` steps: from the end of the step before on the last worker to its own
        end on the last worker."""
        rows = self.run(warm_up + steps)
        ends = [max(report.account.ended for report in row.reports) for row in rows[warm_up - 1 :]]
        return [after - before for before, after in pairwise(ends)]

    def run(self, steps: int) -> list[TrainedStep]:
        """Train `steps` steps."""
        trainer = Trainer(self.blueprint, self.workers, train_rows=self._rows, max_steps=steps)
        return [row for row in trainer.rows() if isinstance(row, TrainedStep)]

    def close(self) -> None:
        """End the actors."""
        self.workers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
