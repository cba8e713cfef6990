"""What a job's page shows of its plan.json: the plan's dry run until a step is sampled, and what a search gained."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nicegui import Client
from nicegui.page import page

from cluster.dashboard.gantt import BUBBLE
from cluster.dashboard.pages.job_parts import Pipeline
from cluster.dashboard.picture import Picture, make_picture
from cluster.dashboard.planned import UNIT, planned
from cluster.service.records import JobRecord
from coordinator.job.spec import parse_job
from coordinator.plan.blueprint import make_blueprint
from coordinator.plan.planned_schedule import planned_schedule
from coordinator.queue.job_states import Running
from stages.actions import Action
from tests.dashboard.test_views import record


def plan(schedule: str = "auto") -> dict[str, Any]:
    """Return the content of plan.json of a job with stages of unlike cost."""
    layers = [{"linear": {"units": units}} for units in (8, 32, 8, 4)]
    training = {"epochs": 1, "batch_size": 48, "micro_batches": 6, "optimizer": {"sgd": {"learning_rate": 0.1}}}
    document = {
        "model": {"input": [8], "layers": layers, "loss": "mse"},
        "data": {"source": "data.npz"},
        "training": training,
        "pipeline": {"stages": 4, "workers": 2, "schedule": schedule},
    }
    return {"attempt": 1, **planned_schedule(make_blueprint(parse_job(document), 48))}


def test_a_searched_schedule_has_its_picture_and_says_what_it_gains() -> None:
    """The page of a job with `schedule: auto` said that there is no picture."""
    content = plan()
    found = planned(content)
    assert re.fullmatch(
        r"schedule auto: a step is (\d+\.\d% shorter than|as long as) with [\w-]+, the best built-in one; "
        r"by estimated times, with messages that are 30 µs on their way",
        found.gain,
    )
    assert found.picture is not None
    (panel,) = found.picture.panels
    assert sum(bar[3] != BUBBLE for bar in panel.bars) == 3 * 4 * 6
    assert panel.until == pytest.approx(100)
    assert f"bubble {100 * content['bubble']:.1f}%" in found.picture.summary


def test_a_plan_of_an_older_version_has_its_gain() -> None:
    """It did not say for which times it was searched."""
    found = planned({**plan(), "searched": {"built_in": "zbv", "gain": 0.031}})
    assert found.gain == "schedule auto: a step is 3.1% shorter than with zbv, the best built-in one"


def test_a_schedule_that_was_not_searched_gains_nothing() -> None:
    assert planned(plan("1f1b")).gain == ""


def test_a_step_of_many_actions_has_no_picture_but_its_gain() -> None:
    found = planned({**plan(), "dry_run": None})
    assert (found.picture, found.gain != "") == (None, True)


@pytest.mark.parametrize(
    "damage",
    [
        {"dry_run": [[0, "0F0", 0.0]]},
        {"dry_run": [[0, "zero", 0.0, 1.0]]},
        {"dry_run": [[-1, "0F0", 0.0, 1.0]]},
        {"dry_run": [[10**9, "0F0", 0.0, 1.0]]},
        {"dry_run": "all"},
        {"dry_run": [[0, "0F0", 0.0, 1.0]] * 4000},
        {"bubble": None},
        {"searched": 3},
        {"searched": {"gain": "much", "built_in": "zb-h1"}},
    ],
)
def test_a_damaged_file_is_no_plan(damage: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        planned({**plan(), **damage})


def test_the_plan_is_drawn_until_a_step_is_sampled() -> None:
    job: JobRecord = record(Running(attempt=1))
    measured = make_picture([("measured", [(0, Action.parse("0F0"), 0.0, 2.0)])], 1, "Step 3")

    async def sampled() -> Picture:
        return measured

    async def look() -> list[tuple[str, str, str]]:
        seen = []
        with Client(page("/")) as client:
            view = Pipeline(job)
            view.without_picture(job, looked=True)

            def note() -> None:
                seen.append((view._view.gantt.unit, view._gain.text, view._said.text))

            view.plan(planned(plan()))
            note()
            view.failed(Action.parse("1B2"))
            note()
            assert view._view._mark == Action.parse("1B2")
            await view.show(cast(Any, SimpleNamespace(picture=sampled)))
            view.plan(planned(plan()))  # in a new layout, for example
            note()
        client.delete()
        return seen

    first, failed, last = asyncio.run(look())
    assert first[0] == failed[0] == UNIT
    assert "dry run of the plan" in first[2]
    assert "The picture appears" in first[2]
    assert "1B2, which failed, has a red frame" in failed[2]
    assert first[1].startswith("schedule auto: a step is ")
    assert (last[0], last[1]) == ("ms", first[1])
    assert last[2].startswith("Step 3.")
    assert "appears" not in last[2]
