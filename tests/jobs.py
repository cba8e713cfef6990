"""Small jobs and runs that several tests share."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from cluster.actors.ray_workers import RayWorkers
from cluster.checkpoints.given_weights import check_weights
from cluster.cli import main
from cluster.data.sources import JobData, load_data
from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.blueprint import Blueprint, make_blueprint
from coordinator.train.rows import Row
from coordinator.train.trainer import Trainer
from stages.orders import Fault

EXAMPLES = Path(__file__).parent.parent / "examples"
PIPETRAIN = str(Path(sys.executable).with_name("pipetrain"))


def digits_job(**pipeline: Any) -> JobSpec:
    """Five layers on the digits, two epochs of 1438 rows in batches of 103 and 8 micro-batches."""
    return parse_job(
        {
            "name": "digits-test",
            "seed": 11,
            "model": {
                "input": [64],
                "layers": [
                    {"linear": {"units": 32}},
                    "relu",
                    {"linear": {"units": 16}},
                    "tanh",
                    {"linear": {"units": 10}},
                ],
                "loss": "cross_entropy",
            },
            "data": {"source": "digits"},
            "training": {
                "epochs": 2,
                "batch_size": 103,
                "micro_batches": 8,
                "optimizer": {"sgd": {"learning_rate": 0.1, "momentum": 0.9}},
            },
            "pipeline": {"stages": 4, "schedule": "1f1b", **pipeline},
            "resources": {"hang_timeout": 20.0},
        }
    )


@dataclass
class RayRun:
    """A job on real actors, ready to train."""

    spec: JobSpec
    data: JobData
    blueprint: Blueprint
    workers: RayWorkers

    def train(self) -> list[Row]:
        """Train, and return all rows of the job."""
        rows = len(self.data.train), len(self.data.validation)
        return list(Trainer(self.blueprint, self.workers, train_rows=rows[0], validation_rows=rows[1]).rows())


def start_on_ray(ray: Any, spec: JobSpec, faults: Mapping[int, Fault] | None = None) -> RayRun:
    """Start actors for the job; the caller closes `workers`."""
    data = load_data(spec)
    blueprint = make_blueprint(spec, len(data.train))
    weights = check_weights(spec)
    workers = RayWorkers(ray, blueprint, fingerprint=data.fingerprint(), weights=weights, faults=faults)
    return RayRun(spec, data, blueprint, workers)


def pipetrain(
    *arguments: str | Path, cwd: Path | None = None, timeout: float = 250
) -> subprocess.CompletedProcess[str]:
    """Run the installed command as a user does."""
    command = [PIPETRAIN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=cwd, check=False)


def pipetrain_here(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, which saves seconds of imports: for commands that do not start Ray.

    An exception that the command does not turn into a message is raised here.
    """
    command = [PIPETRAIN, *map(str, arguments)]
    code, written, errors = 0, io.BytesIO(), io.StringIO()
    output = io.TextIOWrapper(written, encoding="utf-8", newline="\n", write_through=True)
    with (
        mock.patch.object(sys, "argv", command),
        mock.patch.dict(os.environ, {"COLUMNS": "200"}),  # so that no row of a table is wrapped
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    return subprocess.CompletedProcess(command, code, written.getvalue().decode(), errors.getvalue())
