"""Measures what a hundred watchers of a job receive, and how much they slow its training."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.service_home import PATIENCE_S, Load, Row, Service, small_job, wait_for, wide_job
from benchmarks.service_load import digest
from cluster.client.job import Job

WATCHERS, CHANNELS = 100, 4
_SETTLE_S, _PART_S = 1.0, 5.0


def watchers(options: argparse.Namespace) -> list[Row]:
    """Check that each watcher receives every row once, in order."""
    with Service() as service, Load(service, 1) as load:
        job = service.client.submit(small_job(service.folder, epochs=300, stages=2), upload=False)
        _watch(load, job, late=WATCHERS // 2, late_after=500)
        (answer,) = load.processes.answers(PATIENCE_S)
        job.refresh()
        written = [json.loads(line) for line in service.rows_text(job).splitlines()]
        right = answer["digests"].get(digest(iter(written)), 0)
        final = answer["states"].get(job.state, 0)
    what = (
        f"{WATCHERS} watchers of one job ({job.state}), {WATCHERS // 2} from its beginning and the rest from row 500 on"
    )
    text = f"{right} have all {len(written):,} rows in order, once; {final} the final state last"
    return [Row(what, text, f"{WATCHERS}", right == final == WATCHERS)]


def _watch(load: Load, job: Job, *, seconds: float = PATIENCE_S, **more: Any) -> None:
    """Begin to watch. The processes answer again when the job has ended, or after `seconds`."""
    order = {"job": job.id, "watchers": WATCHERS, "channels": CHANNELS, "seconds": seconds, "aside": True}
    load.order(do="watch", **order, **more)


@dataclass(frozen=True, slots=True)
class Trained:
    """Seconds a step, median and mean, from the second step on; CPU seconds of service and watchers."""

    median: float
    mean: float
    service_cpu: float
    watchers_cpu: float
    lasted: float


def slowdown(options: argparse.Namespace) -> list[Row]:
    """Measure how much watchers slow the training."""
    pairs: list[tuple[Trained, Trained]] = []
    with Service() as service:
        _train(service, watched=False, steps=200)  # warms up
        for number in range(options.rounds):
            order = (False, True) if number % 2 == 0 else (True, False)
            found = {watched: _train(service, watched=watched, steps=options.steps) for watched in order}
            pairs.append((found[False], found[True]))
    medians = [with_.median / without.median for without, with_ in pairs]
    means = [with_.mean / without.mean for without, with_ in pairs]
    each = "; ".join(
        f"{1000 * without.median:.2f} → {1000 * with_.median:.2f} ms (mean {1000 * without.mean:.2f} → "
        f"{1000 * with_.mean:.2f})"
        for without, with_ in pairs
    )
    alone = [without.median for without, _ in pairs]
    used = [pair[1] for pair in pairs]
    cpu = (
        f"in {used[-1].lasted:.0f} s: service {statistics.median(u.service_cpu for u in used):.2f} s "
        f"(unwatched {statistics.median(pair[0].service_cpu for pair in pairs):.2f} s), "
        f"client process {statistics.median(u.watchers_cpu for u in used):.2f} s"
    )
    return [
        _slower(f"median step with {WATCHERS} watchers against none, {options.rounds} rounds", medians),
        _slower("mean step, the same", means),
        Row("steps without and with, by round", each),
        Row("the same without watchers: largest against smallest median", f"{max(alone) / min(alone) - 1:+.1%}"),
        Row("CPU seconds with watchers", cpu),
    ]


def _slower(what: str, ratios: Sequence[float]) -> Row:
    rounds = ", ".join(f"{ratio - 1:+.1%}" for ratio in ratios)
    middle = statistics.median(ratios) - 1
    return Row(what, f"{middle:+.1%} (by round {rounds})", "≤ 3 %", middle <= 0.03)


def _train(service: Service, *, watched: bool, steps: int) -> Trained:
    with Load(service, 1) as load:
        job = service.client.submit(wide_job(service.folder, width=256, batch=512, steps=steps), upload=False)
        before, began = service.cpu_s, time.monotonic()
        answer = {"cpu": 0.0}
        if watched:
            _watch(load, job)
            (answer,) = load.processes.answers(PATIENCE_S)
        wait_for(lambda: job.refresh().done, f"not done: {job!r}", PATIENCE_S, every_s=1.0)
        used, lasted = service.cpu_s - before, time.monotonic() - began
    assert job.state == "SUCCEEDED", job
    rows = [json.loads(line) for line in service.rows_text(job).splitlines()]
    seconds = [row["seconds"] for row in rows if row["kind"] == "step"][1:]
    return Trained(statistics.median(seconds), statistics.mean(seconds), used, answer["cpu"], lasted)


def slowdown_within(options: argparse.Namespace) -> list[Row]:
    """Measure the same within one job, which is watched and not watched in turns of a few seconds.

    A shared machine is about as fast in one such turn as in the next; between two jobs its speed can change.
    """
    parts: dict[bool, list[Sequence[float]]] = {False: [], True: []}
    with Service() as service, Load(service, 1) as load:
        document = wide_job(service.folder, width=256, batch=512, steps=1_000_000)
        job = service.client.submit(document, upload=False)
        wait_for(lambda: job.refresh().step > 100, f"the job does not run: {job!r}")
        for number in range(options.turns):
            for watched in ((False, True), (True, False))[number % 2]:
                if watched:
                    _watch(load, job, seconds=_SETTLE_S + _PART_S, from_now=True)
                time.sleep(_SETTLE_S)
                before = len(_seconds(service, job))
                time.sleep(_PART_S - 0.5)
                parts[watched].append(_seconds(service, job)[before:])
                if watched:
                    load.processes.answers(PATIENCE_S)
        job.stop(now=True).wait(timeout=60)
    pairs = [*zip(parts[False], parts[True], strict=True)]
    medians = [statistics.median(with_) / statistics.median(without) - 1 for without, with_ in pairs]
    means = [statistics.mean(with_) / statistics.mean(without) - 1 for without, with_ in pairs]
    return [_within(f"{what} step, watched against not, within one job", each) for what, each in
            (("median", medians), ("mean", means))]  # fmt: skip


def _within(what: str, slower: Sequence[float]) -> Row:
    low, middle, high = statistics.quantiles(slower, n=4)
    text = f"{middle:+.1%}; half of the {len(slower)} pairs of turns from {low:+.1%} to {high:+.1%}"
    return Row(what, text, "≤ 3 %", middle <= 0.03)


def _seconds(service: Service, job: Job) -> list[float]:
    """Return the seconds of each step so far; the last line may be incomplete."""
    lines = service.rows_text(job).split("\n")[:-1]
    return [json.loads(line)["seconds"] for line in lines if '"step"' in line[:20]]
