"""`python -m benchmarks.accounting`: what it costs to book every worker's time, measured with it and without.

Two worker threads train the same network; rounds with and without alternate, so that both meet the same machine.
Without: no clock is read in a step, no account is summed or predicted, and nothing but the row is written. Threads of
one process make it dearer than in a job's processes: all bookings then share one interpreter.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks import CONFIGS, WORKERS, Config
from benchmarks.ours import job_for
from cluster.run_dir import RunDir
from cluster.sources import JobData, load_data
from cluster.step_observer import StepObserver
from coordinator.accounts import Bubble
from coordinator.blueprint import Blueprint, make_blueprint
from coordinator.local import LocalWorkers
from coordinator.rows import StepRow
from coordinator.trainer import Trainer
from stages.ledger import STAGE_KINDS, WORKER_KINDS, Account


class _NoLedger:
    """Books nothing. `step_s` is what it says that each step took: by it the trainer gives out orders."""

    step_s = 1.0

    def __init__(self, stages: Sequence[int]) -> None:
        self.trace, self.timeline = False, list[Any]()

    def open(self) -> None: ...
    def book(self, stage: int, kind: int) -> None: ...
    def book_action(self, stage: int, kind: int, micro_batch: int) -> None: ...
    def book_worker(self, kind: int) -> None: ...
    def take(self) -> Account:
        return Account(0.0, self.step_s, {}, (0.0,) * len(WORKER_KINDS))


class _NoAccounts:
    """Sums nothing, predicts nothing."""

    last = None

    def __init__(self, *ignored: object) -> None: ...
    def add(self, reports: object) -> Bubble:
        return Bubble(0.0, ())

    def line(self, *ignored: object) -> None: ...


@contextlib.contextmanager
def _without() -> Iterator[None]:
    with (
        patch("stages.worker.Ledger", _NoLedger),
        patch("coordinator.trainer.Accounts", _NoAccounts),
        patch("coordinator.trainer.Predictor", _NoAccounts),
        patch("coordinator.trainer._SAMPLE_S", float("inf")),
    ):
        yield


def _seconds_a_step(blueprint: Blueprint, data: JobData, folder: Path, *, steps: int, booked: bool) -> float:
    """The mean of `steps` steps, from the first order to the last row."""
    with (
        contextlib.nullcontext() if booked else _without(),
        contextlib.closing(LocalWorkers(blueprint, train=data.train)) as workers,
        contextlib.closing(RunDir.create(folder, blueprint.spec)) as run_dir,
    ):
        trainer = Trainer(blueprint, workers, train_rows=len(data.train), max_steps=steps)
        observer = StepObserver("benchmark", run_dir, blueprint, data, workers, trainer)
        began = time.perf_counter()
        for row in trainer.rows():
            assert isinstance(row, StepRow)
            run_dir.metric(row.as_dict())
            if booked:
                observer.step(row)
        return (time.perf_counter() - began) / steps


def _measure(config: Config, *, rounds: int, seconds: float) -> str:
    with tempfile.TemporaryDirectory() as folder:
        spec = job_for(config, Path(folder), schedule="1f1b", group=1)
        data = load_data(spec)
        blueprint = make_blueprint(spec, len(data.train))
        once = _seconds_a_step(blueprint, data, Path(folder) / "warm-up", steps=30, booked=True)
        _NoLedger.step_s = once
        steps = max(20, round(seconds / once))
        ratios, alone = [], []
        for number in range(rounds):
            found = {}
            for booked in (True, False) if number % 2 else (False, True):
                place = Path(folder) / f"{number}-{booked}"
                found[booked] = _seconds_a_step(blueprint, data, place, steps=steps, booked=booked)
            ratios.append(found[True] / found[False] - 1)
            alone.append(found[False])
    noise = max(alone) / min(alone) - 1
    low, *_, high = statistics.quantiles(ratios, n=4)
    return (
        f"| {config} | {1e3 * statistics.median(alone):.2f} ms | {statistics.median(ratios):+.2%} "
        f"({low:+.2%} to {high:+.2%}) | {noise:.0%} |"
    )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=2.0, help="of training in each half of a round")
    options = parser.parse_args()
    print(f"{WORKERS} worker threads, {len(STAGE_KINDS)} + {len(WORKER_KINDS)} kinds of time\n")
    print(
        "| width, layers, batch, micro-batches | step without | with accounts (quartiles) | largest against smallest |"
    )
    print("|---|---|---|---|")
    for config in CONFIGS[2:]:
        print(_measure(config, rounds=options.rounds, seconds=options.seconds), flush=True)


if __name__ == "__main__":
    main()
