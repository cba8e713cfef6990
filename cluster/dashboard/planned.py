"""plan.json of a job for its page: the picture of the plan's dry run, and what the search for its schedule gained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.dashboard.gantt import Timed
from cluster.dashboard.picture import Picture, make_picture
from coordinator.plan.planned_schedule import MOST_ACTIONS, gain_text
from coordinator.texts import share
from stages.actions import Action

UNIT = "% of the step"
"""The unit of the picture's times."""


@dataclass(frozen=True, slots=True)
class PlanView:
    """`picture` is None if the step has too many actions; `gain` is empty if the schedule was not searched."""

    picture: Picture | None
    gain: str


def planned(content: Mapping[str, Any]) -> PlanView:
    """Return what a page shows of a plan.json, or of the service's answer to a request for a plan. Raises ValueError if
    the file is damaged."""
    try:
        actions = content["dry_run"]
        picture = None if actions is None else _picture(str(content["schedule"]), float(content["bubble"]), actions)
        return PlanView(picture, gain_text(content["searched"]))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError("not the content of a plan.json") from error


def _picture(schedule: str, bubble: float, actions: list[list[Any]]) -> Picture:
    timed: list[Timed] = [
        (int(worker), Action.parse(text), 100 * float(start), 100 * float(end)) for worker, text, start, end in actions
    ]
    n_workers = 1 + max((worker for worker, *_ in timed), default=0)
    if len(timed) > MOST_ACTIONS or min((worker for worker, *_ in timed), default=0) < 0 or n_workers > MOST_ACTIONS:
        raise ValueError("not the actions of a dry run")
    title = "predicted by the plan's dry run"
    said = f"{schedule}, dry run of the plan, from counted operations: bubble {share(bubble)}"
    return make_picture([(title, timed)], n_workers, said)
