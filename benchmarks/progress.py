"""`python -m benchmarks.progress`: what it costs that workers record what they are doing.

Two workers that are threads train a few steps with their progress and a few without, again and again; each pair gives a
ratio of the process's CPU time, which other processes of the machine disturb least.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import CONFIGS, Config
from benchmarks.ours import job_for
from cluster.data.sources import load_data
from coordinator.plan.blueprint import make_blueprint
from coordinator.train.local import LocalWorkers
from stages.actions import Action
from stages.channel import Tag
from stages.orders import Order, TrainStep, Update
from stages.progress import Doing, Progress, Seen

_BLOCK = 3  # steps of one measurement: short, so that the machine is the same for both halves of a pair


class _NoProgress:
    """Records nothing."""

    def begin(self) -> None: ...
    def compute(self, step: Any, action: Any) -> None: ...
    def wait(self, step: Any, action: Any, tag: Any, sender: int) -> None: ...
    def send(self, step: Any, action: Any, tag: Any, receiver: int) -> None: ...
    def sent(self, tag: Any) -> None: ...
    def rest(self, step: Any, round_: int) -> None: ...
    def seen(self) -> Seen:
        return Seen(Doing.PREPARING)


def _measure(config: Config, pairs: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        spec = job_for(config, Path(folder), schedule="1f1b", group=1)
        data = load_data(spec)
        blueprint = make_blueprint(spec, len(data.train))
        orders: list[Order] = [TrainStep(step=1, epoch_index=0, first=0, last=config.batch), Update(1, 1e-3)]
        with contextlib.closing(LocalWorkers(blueprint, train=data.train)) as workers:
            real = [worker.progress for worker in workers._workers]
            none: list[Any] = [_NoProgress() for _ in real]

            def seconds(told: bool) -> float:
                for worker, progress in zip(workers._workers, real if told else none, strict=True):
                    worker.progress = progress
                began = time.process_time()
                workers.submit(orders * _BLOCK).collect()
                return (time.process_time() - began) / _BLOCK

            for told in (True, False) * 3:
                seconds(told)
            ratios, alone = [], []
            for number in range(pairs):
                found = {told: seconds(told) for told in ((True, False) if number % 2 else (False, True))}
                ratios.append(found[True] / found[False] - 1)
                alone.append(found[False])
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"| {config} | {1e3 * statistics.median(alone):.2f} ms | {middle:+.2%} ({low:+.2%} to {high:+.2%}) |"


def _one_message() -> float:
    """Return the seconds that a worker needs to record an action that receives an array and sends one."""
    progress, action = Progress(), Action.parse("1F0")
    tags = [Tag(j, 1, action.kind, j) for j in range(64)]
    progress.begin()
    found = []
    for _ in range(50):
        began = time.thread_time()
        for tag in tags * 16:
            progress.compute(1, action)
            progress.wait(1, action, tag, 0)
            progress.compute(1, action)
            progress.send(1, action, tag, 2)
            progress.sent(tag)
            progress.compute(1, action)
        found.append((time.thread_time() - began) / (16 * len(tags)))
    return statistics.median(found)


def main() -> None:
    """Run the measurements and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=200)
    options = parser.parse_args()
    print(f"an action that receives and sends: {1e6 * _one_message():.2f} µs")
    print("| width, layers, batch, micro-batches | CPU of a step, both workers | its progress (quartiles) |")
    print("|---|---|---|")
    for config in CONFIGS[2:]:
        print(_measure(config, options.pairs), flush=True)


if __name__ == "__main__":
    main()
