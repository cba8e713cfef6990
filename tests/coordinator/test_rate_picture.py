"""The learning rate, drawn."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from cluster.cli import cli
from coordinator.job.rates import ScheduleSection
from coordinator.plan.rate_picture import notable_steps, rate_picture


def _rate(document: Any, steps: int = 100) -> Any:
    return ScheduleSection.model_validate(document).rates(1e-3, steps, 10)


def _told(document: Any, steps: int = 100, warmup: int = 0) -> dict[int, str]:
    return {one.step: one.what for one in notable_steps(_rate(document, steps), steps, warmup)}


def test_notable_steps() -> None:
    assert _told("constant") == {1: "first step", 50: "middle", 100: "last step"}
    cosine = _told({"cosine": {"warmup": 10}}, warmup=10)
    assert cosine == {1: "first step", 10: "end of the warm-up", 50: "middle", 100: "last step"}
    wsd = _told({"wsd": {"decay": 0.2}})
    assert wsd[81] == "changes after this step"
    steps = _told({"step": {"every": 40}})
    assert {40, 41, 80, 81} <= steps.keys()
    assert _told("constant", steps=1) == {1: "first step"}
    rates = {one.step: one.rate for one in notable_steps(_rate({"cosine": {"warmup": 10}}), 100, 10)}
    assert rates[1] == pytest.approx(1e-4)
    assert rates[10] == pytest.approx(1e-3)


def test_a_picture_rises_and_falls_as_the_rate_does() -> None:
    lines = rate_picture(_rate({"cosine": {"warmup": 25}}), 100, width=20, height=4)
    assert len(lines) == 6
    assert lines[0].startswith("0.001")
    columns = [[line[len(lines[-2]) - 20 :].ljust(20)[k] != " " for line in lines[:4]] for k in range(20)]
    heights = [sum(column) for column in columns]
    top = heights.index(4)
    assert heights[:top] == sorted(heights[:top])
    assert heights[top + 3 :] == sorted(heights[top + 3 :], reverse=True)
    assert lines[-1].split() == ["step", "1", "100"]


@pytest.mark.parametrize("steps", [1, 2, 7, 100_000])
def test_any_number_of_steps_is_drawn(steps: int) -> None:
    lines = rate_picture(_rate("constant", steps), steps, width=60, height=3)
    assert all(len(line) <= 70 for line in lines)
    assert "█" in lines[0]


def test_plan_draws_the_rates_of_a_job() -> None:
    arguments = ["plan", "examples/digits.yaml", "--rates", "--set", "training.schedule={cosine: {warmup: 20}}"]
    text = CliRunner().invoke(cli, arguments, catch_exceptions=False).output
    assert text.startswith("digits: learning rate, cosine, over")
    assert "█" in text
    assert "          20  0.1        end of the warm-up" in text
    told = json.loads(CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False).output)
    assert told["learning_rates"][0] == {"step": 1, "learning_rate": 0.005, "what": "first step"}
    assert told["learning_rates"][-1]["step"] == told["steps"]
    assert told["learning_rates"][-1]["learning_rate"] < 1e-3
