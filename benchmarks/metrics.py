"""`python -m benchmarks.metrics`: how long a scrape of /metrics takes, and how long it blocks the event loop.

The run directories come from a real training run with the same number of stages, with threads as workers.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from benchmarks.recorded_jobs import classifier, jobs_of, record, train
from cluster.service.metrics import Metrics
from cluster.service.metrics_jobs import job_text

_OPENMETRICS = "application/openmetrics-text; version=1.0.0"
_LIMIT_MS = 50.0


async def measure(folder: Path, n_jobs: int, stages: int, rounds: int) -> None:
    """Measure and print the table."""
    (folder / "data").mkdir()
    train(classifier(folder / "data", stages=stages), folder / "run")
    records = [record(f"job{number:05d}", stages=stages) for number in range(n_jobs)]
    async with jobs_of(folder / "home", records, folder / "run") as jobs:
        metrics = Metrics(CollectorRegistry(), jobs, ray_up=lambda: True)
        print(f"{n_jobs} jobs of {stages} stages; median and slowest of {rounds} scrapes")
        print("| what | series | bytes | median | slowest | wanted |  |")
        print("|---|---|---|---|---|---|---|")
        for name, accept in (("OpenMetrics", _OPENMETRICS), ("Prometheus' text", "text/plain")):
            text, _ = metrics.exposition(accept)
            series = sum(not line.startswith(b"#") for line in text.splitlines())
            _row(name, f"{series:,}", f"{len(text):,}", _times(partial(metrics.exposition, accept), rounds), _LIMIT_MS)
        _row(
            "of it in the event loop",
            "",
            "",
            _times(lambda: (metrics._head(_OPENMETRICS), metrics._job_facts()), rounds),
        )
        facts = metrics._job_facts()
        _row("of it in a thread", "", "", _times(lambda: job_text(facts, openmetrics=True), rounds))


def _times(action: Callable[[], object], rounds: int) -> list[float]:
    """Return the milliseconds of each round."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        action()
        found.append(1000 * (time.perf_counter() - began))
    return found


def _row(what: str, series: str, n_bytes: str, times: list[float], limit: float | None = None) -> None:
    median = statistics.median(times)
    wanted = "" if limit is None else f"≤ {limit:.0f} ms"
    held = "" if limit is None else "yes" if median <= limit else "**no**"
    print(f"| {what} | {series} | {n_bytes} | {median:.1f} ms | {max(times):.1f} ms | {wanted} | {held} |", flush=True)


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--stages", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=51)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), options.jobs, options.stages, options.rounds))


if __name__ == "__main__":
    main()
