"""`python -m benchmarks.service [--only NAME …]`: how fast the job service answers, and what it costs.

Every measurement has a service of its own, with two workers, in a temporary home. If only the service
should work, a blocker holds Ray's CPUs: a job whose workers are stopped by a signal, so that all jobs behind it wait.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence

from benchmarks.service_home import CLIENTS, PATIENCE_S, Load, Row, Service, small_job
from benchmarks.service_watchers import slowdown, slowdown_within, watchers
from cluster.client.connection import LONG_CALL_S
from cluster.wire import pipetrain_pb2 as pb


def accepted(options: argparse.Namespace) -> list[Row]:
    """Measure the time from a submission to its acceptance."""
    rows = []
    with Service() as service, service.blocked(), Load(service) as load:
        load.submit(jobs=1000)
        for number in range(options.rounds):
            stored = sum(service.client.cluster().jobs.values())
            for rate in (0.0, 200.0):
                got = load.submit(jobs=2000, rate=rate)
                how = f"paced to {rate:.0f}/s" if rate else "each at once after the last"
                what = f"submit to accepted, {stored:,} jobs stored, {CLIENTS} clients, {how}, round {number + 1}"
                rows.append(Row(what, str(got), "p99 ≤ 25 ms", got.percentile_ms(0.99) <= 25))
    return rows


def rate(options: argparse.Namespace) -> list[Row]:
    """Measure submissions a second, and check that none is lost."""
    with Service() as service, service.blocked(), Load(service) as load:
        before = {job.id for job in service.client.list()}
        got = load.submit(seconds=options.seconds)
        listed = [job.id for job in service.client.list()]
        lost, more = set(got.ids) - set(listed), set(listed) - set(got.ids) - before
        per_s = len(got.ids) / got.lasted
        once = not lost and not more and len(set(got.ids)) == len(got.ids) and len(set(listed)) == len(listed)
        return [
            Row(
                f"submits a second, held for {options.seconds:.0f} s by {CLIENTS} clients",
                str(got),
                "≥ 200/s",
                per_s >= 200,
            ),
            Row(f"of {len(got.ids):,} accepted jobs", f"{len(lost)} lost, {len(more)} more listed", "0, 0", once),
        ]


def listing(options: argparse.Namespace) -> list[Row]:
    """Measure `Client.list` of many jobs."""
    rows = []
    with Service() as service, service.blocked(), Load(service) as load:
        load.submit(jobs=10_000)
        rows.append(_list_row(service, "all of them queued"))
        for job in service.client.list("QUEUED"):
            job.stop()
        rows.append(_list_row(service, "all of them ended"))
    return rows


def _list_row(service: Service, what: str) -> Row:
    connection = service.client._connection
    raw = connection._channels[-1].unary_stream("/pipetrain.v1.Pipetrain/List")  # bytes in, bytes out

    def ask() -> int:
        return sum(map(len, raw(b"", timeout=LONG_CALL_S, metadata=connection.metadata)))

    def messages() -> int:
        call = connection.calls.List(pb.ListRequest(), timeout=LONG_CALL_S, metadata=connection.metadata)
        return sum(len(part.jobs) for part in call)

    n = len(service.client.list())
    before = service.cpu_s
    whole = _median_ms(lambda: len(service.client.list()))
    cpu = 1000 * (service.cpu_s - before) / 20
    text = (
        f"{whole:.0f} ms; as messages without Job objects {_median_ms(messages):.0f} ms, as bytes "
        f"{_median_ms(ask):.0f} ms; the service's CPU {cpu:.0f} ms a call"
    )
    return Row(f"`Client().list()` of {n:,} jobs, {what}, median of 20", text, "≤ 150 ms", whole <= 150)


def _median_ms(call: Callable[[], int]) -> float:
    taken = []
    for _ in range(20):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken)


def memory(options: argparse.Namespace) -> list[Row]:
    """Measure the service's resident memory over jobs that are stopped in the queue."""
    series = []
    with Service() as service, service.blocked(), Load(service) as load:
        for number in range(0, options.ended, 100):
            load.submit(clients=4, jobs=100, stop=True, begin=time.time() + 0.5)
            if number >= 100:
                series.append(service.resident_mib)
        ended = service.client.cluster().jobs.get("STOPPED", 0)
    return [_flat(f"service memory from 200 to {ended:,} jobs, stopped in the queue", series)]


def real_memory(options: argparse.Namespace) -> list[Row]:
    """Measure the service's resident memory over jobs that train."""
    series = []
    with Service() as service:
        for number in range(0, options.real, 10):
            jobs = [service.client.submit(small_job(service.folder, epochs=1), upload=False) for _ in range(10)]
            states = {job.wait(timeout=PATIENCE_S).state for job in jobs}
            assert states == {"SUCCEEDED"}, jobs
            if number >= min(100, options.real // 5):
                series.append(service.resident_mib)
    return [_flat(f"service memory over {options.real} jobs that were trained, the first ones left out", series)]


def _flat(what: str, series: Sequence[float]) -> Row:
    middle = statistics.median(series)
    least, most = min(series) / middle - 1, max(series) / middle - 1
    shown = f"{series[0]:.1f} MiB at first, {series[-1]:.1f} MiB at last; {least:+.1%} to {most:+.1%} of the median"
    return Row(what, shown, "± 5 %", max(-least, most) <= 0.05)


MEASUREMENTS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "accepted": accepted,
    "rate": rate,
    "list": listing,
    "watchers": watchers,
    "slowdown": slowdown,
    "slowdown-within": slowdown_within,
    "memory": memory,
    "real-memory": real_memory,
}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    parser.add_argument("--rounds", type=int, default=3, help="rounds of `accepted` and `slowdown`")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long `rate` lasts")
    parser.add_argument("--steps", type=int, default=1200, help="steps of the job of `slowdown`")
    parser.add_argument(
        "--turns", type=int, default=15, help="turns of `slowdown-within`, each with and without watchers"
    )
    parser.add_argument("--ended", type=int, default=2000, help="jobs of `memory`")
    parser.add_argument("--real", type=int, default=60, metavar="N", help="jobs of `real-memory`")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    print("| what | measured | wanted | reached |\n|---|---|---|---|", flush=True)
    for name in options.only:
        for row in MEASUREMENTS[name](options):
            print(row, flush=True)
        print(f"{name}: load average {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
