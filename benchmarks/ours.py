"""Pipetrain as one of the peers: a job on real Ray actors, measured a few steps at a time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from benchmarks import GPT_LEARNING_RATE, LEARNING_RATE, MOMENTUM, VOCABULARY, WORKERS, AnyConfig, Config, GptConfig
from cluster.actors.protocol import LinkChoice
from cluster.actors.ray_workers import RayWorkers
from cluster.data.sources import load_data
from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.blueprint import make_blueprint
from coordinator.train.rows import TrainedStep
from coordinator.train.trainer import Trainer

_BATCHES = 2  # in the data file, which is one epoch
_MANY_EPOCHS = 1_000_000


def job_for(config: AnyConfig, folder: Path, *, schedule: str, group: int, stages: int = WORKERS) -> JobSpec:
    """Return the configuration as a job. Its random data is written to `folder` once."""
    sections = _gpt(config, folder) if isinstance(config, GptConfig) else _mlp(config, folder)
    training = {"epochs": _MANY_EPOCHS, "batch_size": config.batch, "micro_batches": config.micro_batches}
    pipeline = {"stages": stages, "schedule": schedule, "weight_grad_group": group}
    return parse_job({**sections, "training": {**training, **sections["training"]}, "pipeline": pipeline})


def _mlp(config: Config, folder: Path) -> dict[str, Any]:
    rows = _BATCHES * config.batch
    source = folder / f"{config.width}-{config.batch}.npz"
    if not source.exists():
        rng = np.random.default_rng(0)
        x, y = (rng.standard_normal((rows + 1, config.width), dtype=np.float32) for _ in range(2))
        np.savez(source, x=x, y=y)
    layers: list[object] = [{"linear": {"units": config.width}}, "relu"] * config.layers
    return {
        "name": f"mlp-{config.width}",
        "model": {"input": [config.width], "layers": layers[:-1], "loss": "mse"},
        "data": {"source": str(source), "validation": 1 / (rows + 1)},  # one row: it is never evaluated
        "training": {"optimizer": {"sgd": {"learning_rate": LEARNING_RATE, "momentum": MOMENTUM}}},
    }


def _gpt(config: GptConfig, folder: Path) -> dict[str, Any]:
    source, rows = folder / f"gpt-{config.tokens}-{config.batch}.txt", _BATCHES * config.batch
    held_out = config.tokens + 1  # characters of one row, which is never evaluated
    length = rows * config.tokens + 1 + held_out
    if not source.exists():
        rng = np.random.default_rng(0)
        letters = [chr(ord("0") + n) for n in range(VOCABULARY)]
        text = "".join(letters) + "".join(rng.choice(letters, length - VOCABULARY))
        source.write_text(text, encoding="utf-8")
    linear = {"units": "classes", "bias": False}
    block = {"heads": config.heads, "times": config.layers, "bias": False}
    layers = [{"embedding": {"units": config.width}}, "positions", {"transformer": block}, "layer_norm"]
    return {
        "name": f"gpt-{config.width}",
        "model": {"layers": [*layers, {"linear": linear}], "loss": "cross_entropy", "init": {"std": 0.02}},
        "data": {"source": str(source), "block": config.tokens, "validation": held_out / length},
        "training": {"optimizer": {"adamw": {"learning_rate": GPT_LEARNING_RATE}}},
    }


class OurPeer:
    """A job's actors. They stay alive between measurements, and then block in a call that waits for orders."""

    def __init__(self, ray: Any, spec: JobSpec, links: LinkChoice = LinkChoice()) -> None:
        data = load_data(spec)
        self._rows = len(data.train)
        self.blueprint = make_blueprint(data.spec, self._rows)
        self.workers = RayWorkers(
            ray, self.blueprint, fingerprint=data.fingerprint(), checked=data.checked, links=links
        )

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
