"""A job's schedule as the plan tells it: its name, what a search gained, its dry run with counted costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordinator.plan.blueprint import Blueprint
from coordinator.plan.predicted_step import counted_times, predicted_step
from coordinator.texts import share

MOST_ACTIONS = 3000
"""The most actions of a dry run that is told."""
_AS_LONG = 0.0005  # a smaller gain would be written as 0.0%


def planned_schedule(blueprint: Blueprint) -> dict[str, Any]:
    """Return plain values: `schedule`; `searched` with the best built-in schedule and by which share a step is shorter
    (None for a schedule that was not searched); `bubble`; `dry_run` with an entry [worker, "0F3", start, end] for each
    action, in shares of the time from the first to the last one, sorted by start (None if there are more than
    MOST_ACTIONS)."""
    found, step = blueprint.searched, predicted_step(blueprint, counted_times(blueprint.spec))
    end = max((lane[-1].end for lane in step.spans if lane), default=0.0)
    actions = None
    if sum(map(len, step.spans)) <= MOST_ACTIONS:
        actions = sorted(
            (
                [worker, str(span.action), _share(span.start, end), _share(span.end, end)]
                for worker, lane in enumerate(step.spans)
                for span in lane
            ),
            key=lambda entry: (entry[2], entry[0]),
        )
    return {
        "schedule": blueprint.program.name,
        "searched": None if found is None else {"built_in": found.built_in, "gain": found.gain},
        "bubble": step.bubble.total,
        "dry_run": actions,
    }


def gain_text(searched: Mapping[str, Any] | None) -> str:
    """Return what a search gained as a line of text; empty if the schedule was not searched, or if no built-in one fits
    into the memory."""
    if not searched or searched.get("gain") is None:
        return ""
    shorter = f"{share(searched['gain'])} shorter than" if searched["gain"] >= _AS_LONG else "as long as"
    return f"schedule auto: a step is {shorter} with {searched['built_in']}, the best built-in one"


def _share(time: float, end: float) -> float:
    return round(time / end, 6) if end else 0.0
