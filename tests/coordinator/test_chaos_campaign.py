"""A campaign is a function of its seed, and its faults can all strike; the report joins each with what came of it."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.chaos.campaign import Planned, campaign
from coordinator.chaos.report import other_losses, outcomes
from coordinator.chaos.requests import FaultRequest, problem_of
from coordinator.chaos.timetable import Timetable
from coordinator.plan.blueprint import make_blueprint
from coordinator.schedules import SCHEDULES
from stages.orders import Fault
from tests.jobs import digits_job


def timetable(schedule: str) -> Timetable:
    """28 steps, every 14th with 4 micro-batches instead of 8; an evaluation after it."""
    rows = 13 * 103 + 4
    return Timetable(make_blueprint(digits_job(schedule=schedule), rows), rows, 10)


def drawn(schedule: str, seed: int) -> tuple[Planned, ...]:
    return campaign(seed, 100, timetable(schedule))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_fault_of_a_campaign_can_strike(schedule: str) -> None:
    plan = drawn(schedule, 3)
    assert len(plan) == 100
    for worker, fault in plan:
        request = FaultRequest("a", fault.what, worker, fault.action, fault.step)
        assert problem_of(request, timetable(schedule), steps_done=0) == ""


def test_a_campaign_follows_from_its_seed() -> None:
    assert drawn("zb-h1", 3) == drawn("zb-h1", 3)
    assert drawn("zb-h1", 3) != drawn("zb-h1", 4)
    assert [fault.id for _, fault in drawn("zb-h1", 3)] == [str(n) for n in range(1, 101)]


def test_a_damaged_checkpoint_is_wanted_in_the_same_step() -> None:
    plan = drawn("1f1b", 5)
    for place, (worker, fault) in enumerate(plan):
        if fault.what == "corrupt":
            same = [f for w, f in plan[place + 1 :] if (w, f.step) == (worker, fault.step)]
            assert "kill" in [f.what for f in same]


def event(kind: str, at: str, **details: Any) -> dict[str, Any]:
    return {"event": kind, "time": f"2026-01-01T00:00:{at}+00:00", **details}


def test_the_report_says_what_came_of_each_fault() -> None:
    base = 1767225600.0
    plan = [
        Planned(0, Fault(what="kill", step=5, action="0F0", id="1")),
        Planned(1, Fault(what="oom", step=5, action="1B0", id="2")),
        Planned(1, Fault(what="corrupt", step=7, action="1B0", id="3")),
        Planned(1, Fault(what="kill", step=9, action="1B0", id="4")),
    ]
    events = [
        event("fault", "01", id="1", time_s=base + 1, detail=""),
        event("fault", "01", id="2", time_s=base + 1, detail=""),
        event("worker lost", "01.5", fault="1", worker=0, cause="a"),
        event("recovered", "03", workers=[{"worker": 0}, {"worker": 1}], replaced_s=1.5, steps_lost=2),
        event("caught up", "04", identical=True),
        event("fault", "05", id="3", time_s=base + 5, detail="a bit was flipped"),
        event("worker lost", "06", fault=None, worker=2, cause="a real one"),
        event("recovered", "07", workers=[{"worker": 2}], replaced_s=1.0, steps_lost=0),
    ]
    one, two, three, four = outcomes(plan, events)
    assert (one.found_s, one.replaced_s, one.steps_lost, one.identical) == (0.5, 1.5, 2, True)
    assert (two.found_s, two.replaced_s, two.with_another, two.identical) == (None, 1.5, True, True)
    assert (three.struck, three.detail, three.replaced_s) == (True, "a bit was flipped", None)
    assert not four.struck
    assert other_losses(events) == ["a real one"]
