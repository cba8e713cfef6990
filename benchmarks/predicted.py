"""`python -m benchmarks.predicted`: the predicted time of a step beside the measured one, for every schedule.

For each network, all schedules run on two Ray actors each (`--workers`), in turns; before and after that, `calibrate`
measures F, I, W, updates and messages. The predicted step is the mean of both predictions. "Most of it" is the cause
with the largest difference between the predicted and the mean measured step, in ms, mean of the workers.

With `--delay-ms`, workers run in processes of their own, without Ray, and each array comes so much later
(benchmarks/slow_links.py); the prediction adds the delay to the measured latency, and nothing else.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import CONFIGS, GPT_CONFIGS, WORKERS, AnyConfig
from benchmarks.ours import OurPeer, job_for
from benchmarks.slow_links import SlowPeer
from cluster.actors.ray_session import ray_session
from cluster.run.calibration import calibrate
from coordinator.job.schedule_names import SCHEDULES, TWO_STAGES_A_WORKER
from coordinator.plan.predicted_step import predicted_step
from coordinator.timing.accounts import Accounts
from coordinator.timing.machine_times import MachineTimes
from coordinator.timing.step_comparison import compare, measured_steps

MODELS: dict[str, AnyConfig] = {**{str(one.width): one for one in CONFIGS if one.width != 2048}, "gpt": GPT_CONFIGS[0]}
_TURN_S = 0.4
_AT_ONCE = 5
"""Schedules whose actors are alive at the same time."""


@dataclass
class Measured:
    """One schedule of one network."""

    schedule: str
    peer: OurPeer | SlowPeer
    accounts: Accounts
    seconds: list[float] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 3

    def turn(self, *, counts: bool) -> None:
        """Train for about a turn. The first turn only decides how many steps a turn has."""
        rows = self.peer.run(self.steps + 2)
        ends = [max(report.account.ended for report in row.reports) for row in rows]
        taken = [after - before for before, after in pairwise(ends[1:])]
        if not counts:
            self.steps = max(3, min(300, round(_TURN_S / statistics.median(taken))))
            return
        self.seconds += taken
        for row in rows[2:]:  # the first one waited for orders, the second one for the first
            self.accounts.add(row.reports)
        self.lines.append(self.accounts.line(len(self.seconds), time.time(), None))


@dataclass(frozen=True)
class Result:
    """A row of the table; times in seconds."""

    model: str
    schedule: str
    predicted: float
    measured: float
    mean: float
    cause: str
    by: float

    @property
    def error(self) -> float:
        """The share of the measured time by which the prediction is off."""
        return self.predicted / self.measured - 1

    def __str__(self) -> str:
        times = " | ".join(f"{1e3 * s:.2f}" for s in (self.predicted, self.measured, self.mean))
        return f"| {self.model} | {self.schedule} | {times} | {self.error:+.1%} | {self.cause} {1e3 * self.by:+.2f} |"


def main() -> None:
    """Measure, and print the table with a summary line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS), help="widths of MLPs, and gpt")
    parser.add_argument("--schedules", default=",".join(SCHEDULES))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--workers", type=int, default=WORKERS, help="more than there are cores share them")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="how much later each array comes")
    options = parser.parse_args()
    print("| network | schedule | predicted, ms | measured, median | mean | error | most of it, ms |")
    print("|---|---|---|---|---|---|---|", flush=True)
    results: list[Result] = []
    schedules = options.schedules.split(",")
    delay_s = options.delay_ms / 1e3
    session = (
        nullcontext() if delay_s else ray_session(None, cpus=options.workers * min(_AT_ONCE, len(schedules)), memory=0)
    )
    with tempfile.TemporaryDirectory() as folder, session as ray:
        for model in options.models.split(","):
            for start in range(0, len(schedules), _AT_ONCE):
                some = schedules[start : start + _AT_ONCE]
                for result in _measure(ray, model, some, Path(folder), options.workers, options.rounds, delay_s):
                    print(result, flush=True)
                    results.append(result)
    errors = [abs(result.error) for result in results]
    worst = max(results, key=lambda result: abs(result.error))
    within = sum(error <= 0.1 for error in errors)
    print(
        f"\n{len(results)} rows: median error {statistics.median(errors):.1%} (wanted ≤ 10 %), {within} within 10 %, "
        f"worst {worst.error:+.1%} ({worst.model}, {worst.schedule})"
    )


def _measure(
    ray: Any, model: str, schedules: Sequence[str], folder: Path, workers: int, rounds: int, delay_s: float
) -> Iterator[Result]:
    config = MODELS[model]
    with ExitStack() as alive:
        peers = []
        for schedule in schedules:
            stages = 2 * workers if schedule in TWO_STAGES_A_WORKER else workers
            spec = job_for(config, folder, schedule=schedule, group=1, stages=stages)
            peer = SlowPeer(spec, delay_s) if delay_s else OurPeer(ray, spec)
            alive.callback(peer.close)
            peers.append(Measured(schedule, peer, Accounts(peer.blueprint.program.placement)))
        for one in peers:
            one.turn(counts=False)
        times = [_calibrate(peers, workers)]
        for _ in range(rounds):
            for one in peers:
                one.turn(counts=True)
        times.append(_calibrate(peers, workers))
        for one in peers:
            steps = [predicted_step(one.peer.blueprint, _delayed(found, delay_s)) for found in times]
            seconds = statistics.fmean(step.seconds for step in steps)
            measured = measured_steps(one.lines, one.peer.blueprint.program.placement)
            assert measured is not None, "there are several rounds"
            found = compare(steps[-1], measured)
            cause = found.main_cause
            yield Result(
                str(config).split(", batch")[0] if model == "gpt" else str(config),
                one.schedule,
                seconds,
                statistics.median(one.seconds),
                statistics.fmean(one.seconds),
                cause.replace("_", " "),
                found.by_cause[cause],
            )


def _delayed(times: MachineTimes, delay_s: float) -> MachineTimes:
    return replace(times, local=replace(times.local, latency_s=times.local.latency_s + delay_s))


def _calibrate(peers: Sequence[Measured], workers: int) -> MachineTimes:
    blueprints = [one.peer.blueprint for one in peers]
    return calibrate(
        blueprints[0].spec, workers, bounds=sorted({one.bounds for one in blueprints}),
        rows=sorted({n for one in blueprints for n in one.micro_batch_rows}), alone=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
