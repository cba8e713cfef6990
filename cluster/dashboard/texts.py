"""Figures in the pages' form. This module does not depend on the web."""

from __future__ import annotations

import time
from collections.abc import Sequence

from coordinator.texts import span


def clock(at: float | None) -> str:
    """Return a time such as `2026-03-01 12:30:00`, in the time zone of the service; a dash for None."""
    return "–" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def brief(seconds: float) -> str:
    """Return a duration that may be short: `0.3 ms`, `25 ms`, `3.2 s`, `5 min`."""
    if seconds >= 1:
        return span(seconds)
    thousandths = 1000 * max(0.0, seconds)
    return f"{thousandths:.{int(thousandths < 10)}f} ms"


def spark(values: Sequence[float], width: float = 96, height: float = 24) -> str:
    """Return the SVG path of a small line through the values; empty if fewer than two of them are finite."""
    finite = [value for value in values if abs(value) < float("inf")]
    if len(finite) < 2:
        return ""
    low, high = min(finite), max(finite)
    step, scale = width / (len(finite) - 1), (height - 4) / ((high - low) or 1)
    points = (f"{i * step:.1f},{height - 2 - (value - low) * scale:.1f}" for i, value in enumerate(finite))
    return "M" + "L".join(points)
