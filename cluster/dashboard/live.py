"""What the pages of a running job show, made once for all who watch it, and only where something is new."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.dashboard.gantt import Panel, Timed, panel
from cluster.service.job_stats import JobStats
from coordinator.texts import share
from stages.actions import Action

CHART_POINTS = 300
MOST_BARS = 3000
"""Actions that a panel draws; of a larger step all panels end at the same time."""
_SHORTEST_BUBBLE = 0.004  # of what is drawn: what is shorter is the time between two actions

Points = list[tuple[int, float | None]]


@dataclass(frozen=True, slots=True)
class Picture:
    """The pipeline in the sampled step `step` (from 1): measured, and predicted beneath where there is a prediction."""

    step: int
    panels: Sequence[Panel]
    summary: str
    left_out: str
    """What of it is not drawn; empty where all is. The figures are of the whole step."""


@dataclass(slots=True)
class Live:
    """Views of one attempt's figures. What did not change is the same object as before."""

    stats: JobStats
    _series: dict[str, tuple[int, Points]] = field(default_factory=dict)
    _picture: tuple[Mapping[str, Any], Picture] | None = None
    _drawing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def points(self, name: str) -> Points:
        """A series, thinned for a chart."""
        series = self.stats.series[name]
        version, points = self._series.get(name, (-1, []))
        if version != series.version:
            points = _drawn(series.thinned(CHART_POINTS))
            self._series[name] = series.version, points
        return points

    async def picture(self) -> Picture | None:
        """The last sampled step; None before there is one."""
        content = self.stats.timeline
        if content is None:
            return None
        async with self._drawing:
            if self._picture is None or self._picture[0] is not content:
                self._picture = content, await asyncio.to_thread(picture, content)
        return self._picture[1]


class LiveViews:
    """One Live an attempt, for all pages."""

    def __init__(self) -> None:
        self._views: dict[str, Live] = {}

    def of(self, stats: JobStats) -> Live:
        """The views of these figures."""
        found = self._views.get(stats.job)
        if found is None or found.stats is not stats:
            if len(self._views) > 100:
                self._views.clear()
            found = self._views[stats.job] = Live(stats)
        return found


def _drawn(points: Sequence[tuple[int, float]]) -> Points:
    """As a chart takes them; what is not finite is a gap."""
    return [(step, float(f"{value:.6g}") if math.isfinite(value) else None) for step, value in points]


def picture(content: Mapping[str, Any]) -> Picture:
    """The panels of a timeline.json, in milliseconds."""
    n_workers = len(content["workers"])
    measured, predicted = _timed(content["actions"]), _timed(content["predicted"])
    until = min(_drawn_until(measured), _drawn_until(predicted))
    end = max((timed[3] for timed in (*measured, *predicted)), default=0.0)
    panels = [
        panel(title, actions, n_workers, shortest=_SHORTEST_BUBBLE * min(end, until), until=until)
        for title, actions in (("measured", measured), ("predicted by the schedule's dry run", predicted))
        if actions
    ]
    said = ", ".join(f"{p.title}: {p.end:.2f} ms, idle {share(p.idle)}" for p in panels)
    summary = f"Step {content['step']}, {n_workers} workers; {said}"
    left_out = f"only its first {until:.2f} ms are drawn" if until < end else ""
    return Picture(content["step"], panels, summary, left_out)


def _drawn_until(actions: Sequence[Timed]) -> float:
    """When the first action begins that is not drawn; infinity where all are."""
    starts = sorted(start for _, _, start, _ in actions)
    return starts[MOST_BARS] if len(starts) > MOST_BARS else math.inf


def _timed(actions: Sequence[Sequence[Any]]) -> list[Timed]:
    return [(worker, Action.parse(text), start / 1e3, end / 1e3) for worker, text, start, end in actions]
