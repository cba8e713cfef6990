"""The texts of the events about faults on request, written alike by the terminal, the logs and the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PLANNED, REFUSED, STRUCK = "fault planned", "fault refused", "fault"
"""The kinds of events."""
CHAOS = (PLANNED, REFUSED, STRUCK)


def chaos_text(kind: str, event: Mapping[str, Any]) -> str:
    """Return an event of CHAOS as a line of text."""
    if kind == REFUSED:
        return f"chaos: refused: {event['cause']}"
    fault = f"{event['kind']} of worker {event['worker']} {point_text(event['point'], event['step'])}"
    if kind == PLANNED:
        return f"chaos: planned: {fault}"
    return f"chaos: {fault}" + (f"; {event['detail']}" if event["detail"] else "")


def point_text(point: str | None, step: int | None) -> str:
    """Return a point in words: `before 2B5 of step 100`."""
    if point in ("evaluation", "checkpoint", "update"):
        after = "its step" if step is None else f"step {step}"
        return f"before the {'next ' if step is None else ''}{point} after {after}"
    if point is None:
        return "before its next step" if step is None else f"at the beginning of step {step}"
    return f"before {'the next ' if step is None else ''}{point}" + ("" if step is None else f" of step {step}")
