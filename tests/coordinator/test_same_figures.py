"""For the same job and the same times, `show`, `lab`, `plan`, the pages, /api and a run's prediction say the same.

The bubble is that of one step alone, as in a clipped job; the bubble rate that of steps in a row.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from cluster.dashboard.facts import schedule_model
from cluster.dashboard.planned import planned
from cluster.dashboard.schedule_view import Question, perform, picture_of
from coordinator.job.spec import parse_job
from coordinator.plan.blueprint import Blueprint, make_blueprint
from coordinator.plan.estimate import estimate
from coordinator.plan.partition import ActionCosts
from coordinator.plan.planned_schedule import planned_schedule
from coordinator.schedules import SCHEDULES
from coordinator.timing.lab import Row, ScheduleComparison, compare
from coordinator.timing.prediction import Predictor
from tests.coordinator.test_prediction import _reports
from tests.jobs import pipetrain_here

WORKERS, MICRO_BATCHES = 4, 8


def job(schedule: str, stages: int, *, clipped: bool = True) -> Blueprint:
    """Return a job with a linear layer for each stage. If it is clipped, one step ends before the next one begins."""
    layers = [{"linear": {"units": 8}}] * stages
    training: dict[str, Any] = {"epochs": 1, "batch_size": 64, "micro_batches": MICRO_BATCHES}
    training |= {"clip_norm": 1.0} if clipped else {}
    document = {
        "model": {"input": [8], "layers": layers, "loss": "mse"},
        "data": {"source": "data.npz"},
        "training": {**training, "optimizer": {"sgd": {"learning_rate": 0.1}}},
        "pipeline": {"stages": stages, "schedule": schedule},
    }
    return make_blueprint(parse_job(document), 64)


@pytest.mark.parametrize("backward", [1.0, 1.5])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_one_job_has_one_bubble(schedule: str, backward: float, monkeypatch: pytest.MonkeyPatch) -> None:
    question = ScheduleComparison(n_workers=WORKERS, n_micro_batches=MICRO_BATCHES, times=(1.0, backward, backward))
    (row,) = compare(question, [schedule])
    assert isinstance(row, Row)
    stages = row.n_stages
    found: dict[str, float] = {"lab": row.bubble}

    times = ("--times", f"1,{backward},{backward}")
    told = json.loads(
        pipetrain_here(
            *(
                "lab",
                "--stages",
                str(WORKERS),
                "--micro-batches",
                str(MICRO_BATCHES),
                *times,
                "--schedules",
                schedule,
                "--json",
            )
        ).stdout
    )
    found["lab --json"] = told["schedules"][0]["bubble"]

    asked = Question(schedule, stages, MICRO_BATCHES, WORKERS, backward)
    dry = perform(asked)
    found["schedule page"] = dry.timed.bubble
    (panel,) = picture_of("", dry).panels
    found["its picture"] = panel.idle
    found["/api/schedule"] = schedule_model(asked, dry).bubble

    costs = (ActionCosts(1.0, backward, backward),) * stages
    monkeypatch.setattr("coordinator.plan.predicted_step.action_costs", lambda _: costs)
    blueprint = job(schedule, stages)
    found["plan"] = estimate(blueprint, data_bytes=0, validation_rows=0).bubble
    plan = planned_schedule(blueprint)
    found["plan.json"] = plan["bubble"]
    picture = planned(plan).picture
    assert picture is not None
    assert picture.panels[0].idle == pytest.approx(row.bubble, abs=1e-5), "its times are rounded"
    found["a run's prediction"] = predicted(blueprint, backward, clipped=True)
    assert found == {name: pytest.approx(row.bubble, abs=1e-12) for name in found}

    in_a_row = {
        "lab --json": told["schedules"][0]["bubble_rate"],
        "schedule page": dry.timed.bubble_rate,
        "/api/schedule": schedule_model(asked, dry).bubble_rate,
        "plan": estimate(job(schedule, stages, clipped=False), data_bytes=0, validation_rows=0).bubble,
        "plan.json": planned_schedule(job(schedule, stages, clipped=False))["bubble"],
        "a run's prediction": predicted(blueprint, backward, clipped=False),
    }
    assert in_a_row == {name: pytest.approx(row.bubble_rate, abs=1e-12) for name in in_a_row}


def predicted(blueprint: Blueprint, backward: float, *, clipped: bool, group: int = 1) -> float:
    """Return the bubble that a run with these times would predict."""
    predictor = Predictor(blueprint.program, group, one_at_a_time=clipped)
    times = dict.fromkeys(range(blueprint.program.n_stages), (1.0, backward, backward))
    predictor.add(_reports(blueprint.program, times))
    assert predictor.last is not None
    return predictor.last.bubble.total


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_show_draws_the_same_step_with_its_weight_gradient_groups(schedule: str, group: int) -> None:
    (row,) = compare(ScheduleComparison(n_workers=WORKERS, n_micro_batches=MICRO_BATCHES), [schedule])
    assert isinstance(row, Row)
    stages = ("--stages", str(row.n_stages), "--micro-batches", str(MICRO_BATCHES))
    text = pipetrain_here("show", schedule, *stages, "--weight-grad-group", str(group)).stdout
    shown = re.search(r"bubble  ([\d.]+)% idle", text)
    assert shown is not None
    wanted = predicted(job(schedule, row.n_stages), 1.0, clipped=True, group=group)
    assert shown[1] == f"{100 * wanted:.1f}"
    if group == 1:
        assert shown[1] == f"{100 * row.bubble:.1f}"


def test_a_trace_of_show_has_the_actions_of_the_picture() -> None:
    text = pipetrain_here("show", "1f1b", "--stages", "3", "--micro-batches", "4", "--format", "chrome").stdout
    events: list[Any] = json.loads(text)
    ends = [event["ts"] + event["dur"] for event in events if event.get("ph") == "X"]
    (row,) = compare(ScheduleComparison(n_workers=3, n_micro_batches=4), ["1f1b"])
    assert isinstance(row, Row)
    assert max(ends) == pytest.approx(1000 * row.step)
