"""`python -m benchmarks.tuned`: what `pipetrain tune` chooses, against the best of all settings.

For each network, `tune` chooses as its command does. Then every schedule, number of micro-batches and weight-gradient
group on two workers, and every number of micro-batches on one, is trained for a short turn, all in the same processes;
settings whose workers do the same are trained once. The best of these and tune's choice then take turns for a longer
time, and the medians of their turns are compared. The last line has the largest ratio; 1.03 is wanted.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import CONFIGS, WORKERS, Config
from benchmarks.ours import job_for
from cluster.actors.ray_session import ray_session
from cluster.actors.replanned import ReplannedWorkers
from cluster.data.sources import load_data
from cluster.run.tuning import MeasuredJob, candidates_here, contest, memory_here, run_steps, times_here, to_measure
from coordinator.job.schedule_names import SCHEDULES, TWO_STAGES_A_WORKER, fewest_micro_batches
from coordinator.plan.candidate_memory import those_that_fit
from coordinator.plan.candidates import Candidate, Candidates
from coordinator.plan.contest import Budget, winner
from coordinator.plan.settings import PipelineSettings

_FITTING = 24
_SHORT_S, _LONG_S = 0.25, 1.0  # turns


@dataclass
class _Tried:
    """Settings, and their turns' mean steps in seconds."""

    candidate: Candidate
    turns: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return statistics.median(self.turns)


def main() -> None:
    """Run the comparison and print a table for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, action="append", help="only the networks of this width (repeatable)")
    parser.add_argument("--seconds", type=float, default=40.0, help="the time that tune gets for a network")
    parser.add_argument("--micro-batches", default="1,2,4,8,16", help="the numbers of micro-batches of the full run")
    parser.add_argument("--groups", default="1,4,all", help="its weight-gradient groups")
    parser.add_argument("--best", type=int, default=5, help="how many of its best are measured longer")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each in the last comparison")
    options = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as folder, ray_session(None, cpus=WORKERS * (options.best + 3), memory=0) as ray:
        for config in CONFIGS:
            if options.width is None or config.width in options.width:
                ratios.append(_compare(ray, config, Path(folder), options))
    print(f"largest ratio of tune's choice to the best of all: {max(ratios):.3f} (wanted: at most 1.03)")


def _compare(ray: Any, config: Config, folder: Path, options: argparse.Namespace) -> float:
    data = load_data(job_for(config, folder, schedule="1f1b", group=1))
    job, began = to_measure(data), time.monotonic()
    found, own = candidates_here(job, WORKERS, frozenset(), times_here(job, WORKERS, options.seconds / 10))
    ranked, _ = those_that_fit(found, _FITTING, memory_here(data))
    budget = Budget(seconds=options.seconds)
    with contest(job, ranked, own, budget, own_may_win=True, local=False, notify=_note, session=ray) as running:
        running.run()
    best = winner(running.trials, found.own)
    assert best is not None, "its workers all failed"
    tuned, took = best.candidate, time.monotonic() - began
    _note(f"{config}: tune chose {tuned.settings} in {took:.0f} s")
    began = time.monotonic()
    tried = _screened(ray, job, list(_all_settings(found, options)))
    _note(f"{config}: {len(tried)} settings in {time.monotonic() - began:.0f} s")
    final = [one.candidate for one in tried[: options.best]]
    if all(one.settings != tuned.settings for one in final):
        final.append(tuned)
    measured = _in_turns(ray, job, final, options.rounds)
    print(f"\n{config}: tune took {took:.0f} s; the best of {len(tried)} different programs\n")
    print("| settings | step, ms | |\n|---|---|---|")
    for one in measured:
        mark = "tune's choice" if one.candidate.settings == tuned.settings else ""
        print(f"| {one.candidate.settings} | {1000 * one.seconds:.3f} | {mark} |")
    chosen = next(one for one in measured if one.candidate.settings == tuned.settings)
    ratio = chosen.seconds / measured[0].seconds
    print(f"\nratio {ratio:.3f}", flush=True)
    return ratio


def _all_settings(found: Candidates, options: argparse.Namespace) -> Iterator[Candidate]:
    """Yield a candidate for each different program: settings whose workers do the same count once."""
    seen = set()
    for parts in map(int, options.micro_batches.split(",")):
        for workers, schedules in ((1, ("1f1b",)), (WORKERS, SCHEDULES)):
            for name in schedules:
                if fewest_micro_batches(name, workers) > parts:
                    continue
                stages = workers * (2 if name in TWO_STAGES_A_WORKER else 1)
                for text in options.groups.split(","):
                    group = parts if text == "all" else min(int(text), parts)
                    settings = PipelineSettings(
                        stages=stages, workers=workers, schedule=name, micro_batches=parts, weight_grad_group=group
                    )
                    candidate = found.add(settings)
                    if candidate is None:
                        continue
                    key = candidate.blueprint.program.lanes, candidate.blueprint.bounds, group, parts
                    if key not in seen:
                        seen.add(key)
                        yield candidate


def _screened(ray: Any, job: MeasuredJob, candidates: Sequence[Candidate]) -> list[_Tried]:
    """Measure each candidate for two short turns; return the fastest first."""
    tried = []
    for workers in (1, WORKERS):
        own = [candidate for candidate in candidates if candidate.settings.workers == workers]
        with contextlib.closing(_start(ray, job, own[0])) as running:
            for candidate in own:
                running.perform(candidate.blueprint)
                step = statistics.median(run_steps(job, candidate, running, 2))
                steps = max(2, min(200, round(_SHORT_S / step)))
                tried.append(_Tried(candidate, [_turn(job, candidate, running, steps) for _ in range(2)]))
                tried[-1].turns = [min(tried[-1].turns)]  # a slow spell must not hide a good one
    return sorted(tried, key=lambda one: one.seconds)


def _in_turns(ray: Any, job: MeasuredJob, candidates: Sequence[Candidate], rounds: int) -> list[_Tried]:
    tried, steps = [_Tried(one) for one in candidates], []
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(contextlib.closing(_start(ray, job, one))) for one in candidates]
        for one, own in zip(candidates, workers, strict=True):
            step = statistics.median(run_steps(job, one, own, 2))
            steps.append(max(2, min(400, round(_LONG_S / step))))
        for k in range(rounds):
            order = [*range(len(tried))]
            for n in [*order[k % len(order) :], *order[: k % len(order)]]:
                tried[n].turns.append(_turn(job, candidates[n], workers[n], steps[n]))
    return sorted(tried, key=lambda one: one.seconds)


def _turn(job: MeasuredJob, candidate: Candidate, workers: ReplannedWorkers, steps: int) -> float:
    return statistics.fmean(run_steps(job, candidate, workers, steps))


def _start(ray: Any, job: MeasuredJob, candidate: Candidate) -> ReplannedWorkers:
    return ReplannedWorkers(ray, candidate.blueprint, fingerprint=job.data.fingerprint(), checked=job.data.checked)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
