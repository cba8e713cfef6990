"""Figures as the pages show them. Nothing here knows the web."""

from __future__ import annotations

import time
from collections.abc import Sequence


def number(value: float | None) -> str:
    """Four digits; a dash for None."""
    return "–" if value is None else f"{value:.4g}"


def share(value: float | None) -> str:
    """`31.2 %`; a dash for None."""
    return "–" if value is None else f"{100 * value:.1f} %"


def size(n_bytes: float | None) -> str:
    """`12.3 MiB`; a dash for None."""
    if n_bytes is None:
        return "–"
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:,.1f} {unit}"
    return f"{n_bytes:g} B"


def span(seconds: float) -> str:
    """`0.4 s`, `42 s`, `5 min`, `3.2 h`, `12 d`."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.0f} d"


def clock(at: float | None) -> str:
    """`2026-03-01 12:30:00`, in the time zone of the service; a dash for None."""
    return "–" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def counted(n: int, word: str) -> str:
    """`1 stage`, `3 stages`, `2 micro-batches`."""
    plural = "es" if word.endswith("ch") else "s"
    return f"{n:,} {word}{plural if n != 1 else ''}"


def spark(values: Sequence[float], width: float = 96, height: float = 24) -> str:
    """The path of a small line through the values, evenly apart; empty where there are fewer than two."""
    finite = [value for value in values if abs(value) < float("inf")]
    if len(finite) < 2:
        return ""
    low, high = min(finite), max(finite)
    step, scale = width / (len(finite) - 1), (height - 4) / ((high - low) or 1)
    points = (f"{i * step:.1f},{height - 2 - (value - low) * scale:.1f}" for i, value in enumerate(finite))
    return "M" + "L".join(points)
