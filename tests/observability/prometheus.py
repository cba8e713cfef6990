"""A real Prometheus with the shipped rules, and the series that PromQL texts name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
_START_S = 60.0

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed (Debian's package prometheus)"
)
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (it comes with Debian's package prometheus)"
)
_SELECTOR = re.compile(r"\b((?:pipetrain_\w+|up|scrape_duration_seconds)(?:\{[^}]*\})?)")


def selectors(promql: str) -> list[str]:
    """Return the series that a query reads: names, with matchers if it has any."""
    return _SELECTOR.findall(promql)


class Prometheus:
    """A client of a Prometheus server's HTTP interface."""

    def __init__(self, address: str) -> None:
        self._address = address

    def range(self, expr: str, seconds: int) -> list[dict[str, Any]]:
        """Return the series of a query over the last seconds, with a point for each second. Raises AssertionError for a
        wrong query."""
        now = time.time()
        found = self._get("query_range", query=expr, start=now - seconds, end=now, step=1)
        result: list[dict[str, Any]] = found["result"]
        return [{**series, "values": [point for point in series["values"] if point[1] != "NaN"]} for series in result]

    def instant(self, expr: str) -> list[dict[str, Any]]:
        """Return the series of a query at this moment."""
        result: list[dict[str, Any]] = self._get("query", query=expr)["result"]
        return [{**series, "values": [series["value"]] if series["value"][1] != "NaN" else []} for series in result]

    def has_series(self, selector: str) -> bool:
        """Whether the selector matches any series that was ever scraped."""
        return bool(self._get("series", **{"match[]": selector}))

    def rules(self) -> list[dict[str, Any]]:
        """Return the alert rules, with their health and their active alerts."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **parameters: Any) -> Any:
        url = f"{self._address}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None
        assert found["status"] == "success", found
        return found["data"]


@contextmanager
def running_prometheus(folder: Path, port: int, target: str) -> Iterator[Prometheus]:
    """Run Prometheus with the shipped configuration, but with this service's address and a scrape every second."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(ALERTS)]
    (scrape,) = (entry for entry in config["scrape_configs"] if entry["job_name"] == "pipetrain")
    for key in ("scrape_interval", "scrape_timeout", "dns_sd_configs"):
        scrape.pop(key, None)
    scrape["static_configs"] = [{"targets": [target]}]
    config["scrape_configs"] = [scrape]
    config.pop("alerting", None)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{port}"
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        _await(f"http://{address}/-/ready", process, folder / "log")
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(20)


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"Prometheus does not come up: {log.read_text()}")
        time.sleep(0.05)
