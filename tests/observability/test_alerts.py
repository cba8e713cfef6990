"""The shipped alert rules, tested with Prometheus' own tool."""

from __future__ import annotations

import subprocess

import pytest
import yaml

from tests.observability.prometheus import ALERTS, DEPLOY, needs_promtool

RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml")],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *arguments],
        cwd=DEPLOY / "prometheus",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_it_is_and_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook"}
    assert all(text.endswith(".") for text in annotations.values())
    assert rule["labels"]["severity"] in ("critical", "warning")


def test_every_alert_is_tested() -> None:
    tested = (DEPLOY / "prometheus" / "alerts.test.yml").read_text()
    assert [rule["alert"] for rule in RULES if rule["alert"] not in tested] == []
