"""`python -m benchmarks.cut_cable`: how soon a cut link between two hosts is found, and a host whose cable is pulled.

Network namespaces stand for the hosts, so it needs root. A run of two workers goes on after each cut.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.cluster.hosts_apart import hosts_apart
from tests.cluster.test_cut_cable import begin_run, run_events, write_job

_STEPS_BETWEEN = 8


def _await(done: Any, process: Any) -> None:
    while not done():
        assert process.poll() is None, "the run ended"
        time.sleep(0.02)


def _measure(cuts: int) -> str:
    found, allowed = list[float](), list[float]()
    with tempfile.TemporaryDirectory() as name, hosts_apart() as hosts:
        run = Path(name) / "run"
        train = begin_run(hosts, run, write_job(Path(name), 100_000))
        rows = run / "metrics.jsonl"
        for n in range(cuts + 1):
            enough = rows.read_bytes().count(b"\n") + _STEPS_BETWEEN
            _await(lambda enough=enough: rows.read_bytes().count(b"\n") >= enough, train)
            hosts.pull("b") if n == cuts else hosts.cut()
            at = time.time()
            _await(lambda n=n: len(run_events(run, "worker lost")) > n, train)
            lost = run_events(run, "worker lost")[n]
            found.append(datetime.fromisoformat(lost["time"]).timestamp() - at)
            limit = re.search(r"within ([\d.]+) s", lost["cause"])
            allowed.append(float(limit[1]) + 1.25 if limit else 0.0)
            if n < cuts:
                hosts.cut(cut=False)
                _await(lambda n=n: len(run_events(run, "recovered")) > n, train)
    links, host = found[:-1], found[-1]
    median, longest = statistics.median(links), max(links)
    return (
        f"{cuts} links cut: found after {median:.2f} s (median), {longest:.2f} s (longest) of at most "
        f"{statistics.median(allowed[:-1]):.2f} s; a host cut off: found after {host:.2f} s of at most "
        f"{allowed[-1]:.2f} s; load average {os.getloadavg()[0]:.0f}"
    )


def main() -> None:
    """Print a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=6)
    print(_measure(parser.parse_args().cuts))


if __name__ == "__main__":
    main()
