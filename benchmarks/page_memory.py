"""Measures whether an open page grows: memory of the browser and of the service over an hour.

python -m benchmarks.page_memory --minutes 60

A headless Chromium has the page of a running job open. Samples, each after a garbage collection, have the bytes of the
script heap, the DOM nodes, the event listeners, and the service's resident memory. Growth is the median of the last
quarter divided by that of the second: during the first quarter, the page still fills the points of its charts.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from typing import Any

from selenium import webdriver

from benchmarks.service_home import Row, Service, wait_for, wide_job
from cluster.service.home import Home

_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")
_MOST = 1.1
"""Growth up to this factor counts as none."""


class Page:
    """A job's page in a Chromium of its own, which `close` ends."""

    def __init__(self, url: str) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in _FLAGS:
            options.add_argument(flag)
        self._driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver") or ""))
        self._driver.get(url)

    def text(self) -> str:
        """Return the visible text of the page."""
        found: str = self._driver.execute_script("return document.body.innerText")
        return found

    def held(self) -> dict[str, float]:
        """Collect garbage, and return what the page still holds."""
        self._command("HeapProfiler.enable")
        self._command("HeapProfiler.collectGarbage")
        self._command("Performance.enable")
        found = {metric["name"]: metric["value"] for metric in self._command("Performance.getMetrics")["metrics"]}
        return {
            "script heap, MiB": found["JSHeapUsedSize"] / 2**20,
            "nodes": found["Nodes"],
            "listeners": found["JSEventListeners"],
        }

    def close(self) -> None:
        """End the browser."""
        self._driver.quit()

    def _command(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._driver.execute_cdp_cmd(name, {})
        return found


def measure(minutes: float, every_s: float) -> list[Row]:
    """Take a sample every `every_s` seconds. Return a row for each kind of memory."""
    with Service() as service:
        job = service.client.submit(wide_job(service.folder, width=256, batch=512, steps=10_000_000, stages=1))
        wait_for(lambda: job.refresh().step > 0, "the job makes no step")
        found = Home.read(service.home.service_file)
        assert found is not None
        page = Page(f"http://{found['http']}/jobs/{job.id}")
        try:
            wait_for(lambda: "samples/s" in page.text(), "the page shows no speed")
            samples: list[dict[str, float]] = []
            end = time.monotonic() + 60 * minutes
            while time.monotonic() < end:
                time.sleep(every_s)
                samples.append({**page.held(), "service, MiB resident": service.resident_mib})
                told = ", ".join(f"{name} {value:,.1f}" for name, value in samples[-1].items())
                print(f"step {job.refresh().step:,}: {told}", file=sys.stderr, flush=True)
            steps = job.refresh().step
        finally:
            page.close()
    quarter = len(samples) // 4
    rows = []
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        second, last = (statistics.median(values[a : a + quarter]) for a in (quarter, len(values) - quarter))
        what = f"page open for {minutes:g} min, {steps:,} steps: {name}, second quarter and last"
        rows.append(Row(what, f"{second:,.1f}, {last:,.1f}", f"≤ {_MOST:g} times", last <= _MOST * second))
    return rows


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--every", type=float, default=30, metavar="SECONDS", help="time between two samples")
    options = parser.parse_args()
    if 60 * options.minutes < 8 * options.every:
        parser.error("too short for eight samples")
    rows = measure(options.minutes, options.every)
    for row in rows:
        print(row)
    return 0 if all(row.held for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
