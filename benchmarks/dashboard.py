"""Measures how much an open page slows its job, how soon it shows a step, and how much it is sent.

python -m benchmarks.dashboard            # about three minutes

A process reads the page's websocket as a browser does, and draws nothing, because a browser usually runs on another
machine than the workers. Windows with and without a reader take turns. On a machine with other work, rates swing more
than the effect itself; the service's CPU time for a page does not.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from websocket import WebSocket, WebSocketTimeoutException

from benchmarks.service_home import Row, Service, wait_for, wide_job
from cluster.client import Job

_SETTLE_S = 1.5
_WIDTH, _BATCH = 256, 512


class Page:
    """An open page, connected as in a browser. `sent` is the number of bytes that it was sent so far."""

    def __init__(self, address: str, path: str) -> None:
        html = urllib.request.urlopen(f"http://{address}{path}", timeout=20).read().decode()
        (client,) = set(re.findall(r"'client_id': '([0-9a-f-]+)'|\"client_id\": ?\"([0-9a-f-]+)\"", html))
        self._client = "".join(client)
        query = f"client_id={self._client}&next_message_id=0&implicit_handshake=true&tab_id=benchmark&document_id=one"
        self._socket = WebSocket()
        url = f"ws://{address}/_nicegui_ws/socket.io/?EIO=4&transport=websocket&{query}"
        self._socket.connect(url, origin=f"http://{address}", timeout=20)  # type: ignore[no-untyped-call]
        self._socket.recv()
        self._socket.send("40")
        self.sent = len(html)
        self._acknowledged, self._acknowledged_at = 0, time.monotonic()

    def messages(self, seconds: float) -> list[tuple[float, str]]:
        """Return each message of the next `seconds` with its time of arrival (UTC)."""
        found, end = [], time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                text = self._socket.recv()
            except WebSocketTimeoutException:
                break
            assert isinstance(text, str)
            self.sent += len(text)
            if text == "2":
                self._socket.send("3")
            elif number := re.search(r'"_id":(\d+)', text):
                self._acknowledge(int(number[1]) + 1)
            found.append((time.time(), text))
        return found

    def _acknowledge(self, upto: int) -> None:
        if time.monotonic() - self._acknowledged_at > 3:
            self._acknowledged_at = time.monotonic()
            self._socket.send("42" + json.dumps(["ack", {"client_id": self._client, "next_message_id": upto}]))

    def close(self) -> None:
        """Leave."""
        self._socket.close()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10, help="pairs of windows, one of them watched")
    parser.add_argument("--seconds", type=float, default=5, help="length of a window")
    parser.add_argument("--read", nargs=3, metavar=("ADDRESS", "PATH", "SECONDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        page = Page(*options.read[:2])
        messages = page.messages(float(options.read[2]))
        page.close()
        shown = [(at, int(n[1].replace(",", ""))) for at, text in messages if (n := _STEP.search(text))]
        print(json.dumps({"shown": shown, "sent": page.sent}))
        return
    with Service() as service:
        found = service.home.read(service.home.service_file)
        assert found is not None, "it is up"
        document = wide_job(service.folder, width=_WIDTH, batch=_BATCH, steps=10_000_000)
        job = service.client.submit(document, upload=False)
        wait_for(lambda: job.refresh().step > 200, f"the job does not train: {job!r}")
        for row in _measure(service, job, str(found["http"]), options):
            print(row, flush=True)
        job.stop(now=True).wait(timeout=60)


_STEP = re.compile(r'"text":"([\d,]+) of [\d,]+"')


def _measure(service: Service, job: Job, address: str, options: Any) -> Sequence[Row]:
    ratios, cpu_alone, cpu, sent, shown = [], [], [], [], list[list[tuple[float, int]]]()
    for _ in range(options.pairs):
        before = service.cpu_s
        alone = _rate(job, options.seconds)
        cpu_alone.append((service.cpu_s - before) / options.seconds)
        reader = _reader(address, f"/jobs/{job.id}", options.seconds + 2 * _SETTLE_S)
        time.sleep(_SETTLE_S)
        before = service.cpu_s
        watched = _rate(job, options.seconds)
        cpu.append((service.cpu_s - before) / options.seconds)
        answer = json.loads(reader.communicate(timeout=60)[0])
        ratios.append(watched / alone)
        sent.append(answer["sent"] / (options.seconds + 2 * _SETTLE_S))
        shown.append(answer["shown"])
    late = sorted(_delays(service, job, shown))
    without, watched_cpu = statistics.median(cpu_alone), statistics.median(cpu)
    slowed = 1 - statistics.median(ratios)
    worst = late[int(0.99 * len(late))]
    return [
        Row("a watched job is slowed by, median", f"{100 * slowed:.1f} %", "≤ 2 %", slowed <= 0.02),
        Row("  by pair of windows", ", ".join(f"{100 * (1 - ratio):.1f}" for ratio in ratios)),
        Row(
            "a step is shown after it ended, p50 and p99",
            f"{late[len(late) // 2]:.2f} s, {worst:.2f} s",
            "≤ 1 s",
            worst <= 1,
        ),
        Row("a page is sent", f"{statistics.median(sent) / 1024:.0f} KiB/s"),
        Row(
            "CPU of the service without a page and with one",
            f"{100 * without:.1f} %, {100 * watched_cpu:.1f} % of one core",
        ),
    ]


def _rate(job: Job, seconds: float) -> float:
    first, began = job.refresh().step, time.monotonic()
    time.sleep(seconds)
    return (job.refresh().step - first) / (time.monotonic() - began)


def _reader(address: str, path: str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.dashboard", "--read", address, path, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _delays(service: Service, job: Job, shown: Sequence[Sequence[tuple[float, int]]]) -> list[float]:
    """Return how long after its end each step was shown: until the page's first message with that step or a later one.
    Only steps with a line of their own in the accounts count."""
    lines = map(json.loads, (service.home.run_directory(job.id) / "accounts.jsonl").read_text().splitlines())
    ended = {line["step"]: line["ended"] for line in lines}
    found = []
    for times in shown:
        for (_, before), (at, now) in pairwise(times):
            found += [at - ended[step] for step in range(before + 1, now + 1) if step in ended]
    return found


if __name__ == "__main__":
    main()
