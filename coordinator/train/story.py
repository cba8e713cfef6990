"""The texts of a recovery's events, written alike by the terminal, the logs and the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordinator.texts import counted
from coordinator.train.recovery import Cause

LOST, RECOVERED, CAUGHT_UP, LAID_OUT = "worker lost", "recovered", "caught up", "laid out anew"
"""The kinds of events."""
STRAGGLES, STRAGGLES_NO_MORE = "straggler", "straggler over"
"""The kinds of events about slow workers (see Straggling)."""
STORY = (LOST, LAID_OUT, RECOVERED, CAUGHT_UP)


def story_text(kind: str, event: Mapping[str, Any]) -> str:
    """Return an event of STORY as a line of text."""
    return {LOST: _lost, RECOVERED: _recovered, CAUGHT_UP: _caught_up, LAID_OUT: _laid_out}[kind](event)


def _lost(event: Mapping[str, Any]) -> str:
    found, wait = event["found_s"], event["wait_s"]
    within = "" if found is None else f" (found within {found:.1f} s)"
    later = f" in {wait:g} s" if wait else ""
    if event["loss"] == Cause.LINK:
        return f"{event['cause']}{within}; all workers are connected anew{later}"
    return f"{event['cause']}{within}; worker {event['worker']} is replaced{later}"


def _recovered(event: Mapping[str, Any]) -> str:
    new = []
    for at in event["workers"]:
        spare = ", which was spare," if at["worker"] in event.get("spare", ()) else ""
        new.append(f"worker {at['worker']} is process {at['pid']}{spare} on {at['host']}")
    who = ", ".join(new) or "all workers are connected anew"
    step, lost = event["from_step"], event["steps_lost"]
    place = f"after step {step}" if step else "from the beginning"
    again = f"{counted(lost, 'step')} {'is' if lost == 1 else 'are'} made again" if lost else "no step is lost"
    return f"{who} after {event['replaced_s']:.1f} s; the run goes on {place}, {again}"


def _caught_up(event: Mapping[str, Any]) -> str:
    until = f"all that was lost is made again, until step {event['step']}"
    if event["identical"]:
        return f"{until}: identical"
    return f"{until}: NOT identical, {event['difference']}; a machine computes wrongly"


def straggler_text(event: Mapping[str, Any]) -> str:
    """Return an event about a slow worker as a line of text."""
    who = f"worker {event['worker']} on {event['host']}"
    now, usual = _duration(event["seconds"]), _duration(event["usual_s"])
    computes, by_plan = f"since step {event['since']} it computes {now} a step", event.get("by_plan", False)
    if event["event"] == STRAGGLES_NO_MORE:
        other = f"by its plan {usual} at the pace of the others" if by_plan else f"usually {usual}"
        return f"{who} is no straggler any more: {computes}, {other}"
    times = f"{event['factor']:.1f} ×"
    if by_plan:
        return f"{who} is a straggler: {computes}, {times} the {usual} of its plan at the pace of the others"
    return (
        f"{who} is a straggler: {computes}, {times} its usual {usual}; the others take {event['others']:.1f} × theirs"
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _laid_out(event: Mapping[str, Any]) -> str:
    before, after = event["before"], event["workers"]
    stages = counted(event["stages"], "stage")
    if event["stages"] != before["stages"]:
        stages = f"{before['stages']} stages → {event['stages']}"
    return f"laid out anew: {counted(before['workers'], 'worker')} → {after}, {stages}, because {event['why']}"
