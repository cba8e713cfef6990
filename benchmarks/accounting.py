"""`python -m benchmarks.accounting`: what it costs to record the kinds of every worker's time.

Two parts. The worker's: one worker with two stages, so that every kind of booking happens, trains a few steps with its
ledger and a few without, again and again; each pair gives a ratio. The coordinator's: the extra CPU time of
summing, predicting and writing a step's accounts, as a share of the step. It runs while the workers compute, and takes
CPU from them only if all cores are busy.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import CONFIGS, Config
from benchmarks.ours import job_for
from cluster.data.sources import JobData, load_data
from cluster.run.run_dir import RunDir
from cluster.run.step_observer import StepObserver
from coordinator.plan.blueprint import Blueprint, make_blueprint
from coordinator.timing.accounts import Accounts
from coordinator.timing.prediction import Predictor
from coordinator.train.local import LocalWorkers
from coordinator.train.rows import TrainedStep
from coordinator.train.trainer import Trainer
from stages.channel import LocalExchange
from stages.ledger import WORKER_KINDS, Account, Ledger
from stages.orders import Order, TrainStep, Update
from stages.worker import Worker

_BLOCK = 3  # steps of one measurement: short, so that the machine is the same for both halves of a pair


class _NoLedger:
    """A ledger that books nothing."""

    def __init__(self) -> None:
        self.trace, self.timeline = False, list[Any]()

    def open(self) -> None: ...
    def book(self, stage: int, kind: int) -> None: ...
    def book_action(self, stage: int, kind: int, micro_batch: int) -> None: ...
    def book_worker(self, kind: int) -> None: ...
    def take(self) -> Account:
        return Account(0.0, 0.0, {}, (0.0,) * len(WORKER_KINDS))


def _of_worker(blueprint: Blueprint, data: JobData, config: Config, pairs: int) -> tuple[float, list[float]]:
    """Return the seconds of a step without a ledger, and the ratio of each pair."""
    worker = Worker(blueprint.setup(0), LocalExchange(60.0), train=data.train)
    ledgers: dict[bool, Any] = {True: Ledger(worker.stages), False: _NoLedger()}
    orders: list[Order] = [
        TrainStep(step=1, epoch_index=0, first=0, last=config.batch),
        Update(1, 1e-3),
    ] * _BLOCK

    def seconds(booked: bool) -> float:
        worker._ledger = ledgers[booked]
        began = time.perf_counter()
        result = worker.run(orders)
        assert result.failure is None, result.failure
        return (time.perf_counter() - began) / _BLOCK

    for booked in (True, False) * 3:
        seconds(booked)
    ratios, alone = [], []
    for number in range(pairs):
        found = {booked: seconds(booked) for booked in ((True, False) if number % 2 else (False, True))}
        ratios.append(found[True] / found[False] - 1)
        alone.append(found[False])
    return statistics.median(alone), ratios


def _of_coordinator(blueprint: Blueprint, data: JobData, folder: Path, steps: int) -> float:
    """Return the CPU seconds a step that only accounts need: to take in a step's reports, and to write files."""
    with (
        contextlib.closing(LocalWorkers(blueprint, train=data.train)) as workers,
        contextlib.closing(RunDir.create(folder, blueprint.spec)) as run_dir,
    ):
        trainer = Trainer(blueprint, workers, train_rows=len(data.train), max_steps=steps)
        rows = [row for row in trainer.rows() if isinstance(row, TrainedStep)]
        accounts, observer = (
            Accounts(blueprint.program.placement),
            StepObserver("benchmark", run_dir, blueprint, data, workers, trainer),
        )
        predictor = Predictor(blueprint.program, blueprint.spec.pipeline.weight_grad_group)
        began = time.thread_time()
        for row in rows:
            accounts.add(row.reports)
            predictor.add(row.reports)
            accounts.snapshot(row.step, float(row.step), None)
            observer.step(row)
        return (time.thread_time() - began) / len(rows)


def _measure(config: Config, *, pairs: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        spec = job_for(config, Path(folder), schedule="interleaved-1f1b", group=1, stages=2)
        alone_spec = spec.replace(pipeline__workers=1)
        data = load_data(spec)
        step, ratios = _of_worker(make_blueprint(alone_spec, len(data.train)), data, config, pairs)
        spec = job_for(config, Path(folder), schedule="1f1b", group=1)
        cpu = _of_coordinator(make_blueprint(spec, len(data.train)), data, Path(folder) / "run", 200)
    return f"| {config} | {1e3 * step:.2f} ms | {_percent(ratios)} | {1e6 * cpu:.0f} µs, {cpu / (step / 2):.2%} |"


def _percent(ratios: Sequence[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:+.2%} ({low:+.2%} to {high:+.2%})"


def main() -> None:
    """Run the measurements and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=200)
    options = parser.parse_args()
    print(
        "| width, layers, batch, micro-batches | one worker's step | its ledger (quartiles) | coordinator, CPU a step |"
    )
    print("|---|---|---|---|")
    for config in CONFIGS[2:]:
        print(_measure(config, pairs=options.pairs), flush=True)


if __name__ == "__main__":
    main()
