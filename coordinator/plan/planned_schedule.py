"""A job's schedule as the plan tells it: its name, what a search gained, its dry run with counted costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordinator.plan.blueprint import Blueprint
from coordinator.plan.predicted_step import counted_times, predicted_step
from coordinator.plan.resolved_job import ScheduleGain
from coordinator.texts import precise_span, share

MOST_ACTIONS = 3000
"""The most actions of a dry run that is told."""
_AS_LONG = 0.0005  # a smaller gain would be written as 0.0%


def planned_schedule(blueprint: Blueprint) -> dict[str, Any]:
    """Return plain values: `schedule`; `searched` with the best built-in schedule, by which share a step is shorter,
    and for which times (None for a schedule that was not searched); `bubble`; `dry_run` with an entry
    [worker, "0F3", start, end] for each action, in shares of the time from the first to the last one, sorted by
    start (None if there are more than MOST_ACTIONS)."""
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
        "searched": None if found is None else _searched(found),
        "bubble": step.bubble.total,
        "dry_run": actions,
    }


def _searched(found: ScheduleGain) -> dict[str, Any]:
    link = found.link
    return {
        "built_in": found.built_in,
        "gain": found.gain,
        "times": found.source,
        "link": {
            "latency_s": link.latency_s,
            "bytes_per_s": link.bytes_per_s,
            "times": "measured" if link.measured else "estimated",
        },
    }


def gain_text(searched: Mapping[str, Any] | None) -> str:
    """Return what a search gained as a line of text; empty if the schedule was not searched, or if no built-in one fits
    into the memory."""
    if not searched or searched.get("gain") is None:
        return ""
    shorter = f"{share(searched['gain'])} shorter than" if searched["gain"] >= _AS_LONG else "as long as"
    line = f"schedule auto: a step is {shorter} with {searched['built_in']}, the best built-in one"
    if "times" not in searched:  # of a run by an older version
        return line
    latency = precise_span(searched["link"]["latency_s"])
    return f"{line}; by {searched['times']} times, with messages that are {latency} on their way"


def _share(time: float, end: float) -> float:
    return round(time / end, 6) if end else 0.0
