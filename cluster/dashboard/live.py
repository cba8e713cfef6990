"""The charts' data of a running job, made once for all its open pages, and only if something is new."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cluster.dashboard.gantt import Timed
from cluster.dashboard.marks import NO_MARKS, Marks, marks_of
from cluster.dashboard.picture import Picture, make_picture
from cluster.service.job_stats import JobStats
from coordinator.texts import share
from stages.actions import Action

CHART_POINTS = 300
_SERIES_KEPT = 200  # readers may choose different ranges of steps

Points = list[tuple[int, float | None]]


@dataclass(slots=True)
class Live:
    """The charts' data of one attempt. If nothing changed, a method returns the same object as before."""

    stats: JobStats
    _series: dict[tuple[str, tuple[int, int] | None], tuple[int, Points]] = field(default_factory=dict)
    _picture: tuple[Mapping[str, Any], Picture] | None = None
    _marks: tuple[int, Marks] = (0, NO_MARKS)
    _drawing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def points(self, name: str, steps: tuple[int, int] | None = None) -> Points:
        """Return a series, thinned for a chart. If `steps` is given, only the points from its first to its last
        step."""
        series = self.stats.series[name]
        version, points = self._series.get((name, steps), (-1, []))
        if version != series.version:
            if len(self._series) > _SERIES_KEPT:
                self._series.clear()
            points = _drawn(series.thinned(CHART_POINTS, steps))
            self._series[name, steps] = series.version, points
        return points

    def marks(self) -> Marks:
        """Return what is marked over the charts."""
        survival = self.stats.survival
        if self._marks[0] != survival.version:
            self._marks = survival.version, marks_of(survival)
        return self._marks[1]

    async def picture(self) -> Picture | None:
        """Return the picture of the last sampled step; None before there is one."""
        content = self.stats.timeline
        if content is None:
            return None
        async with self._drawing:
            if self._picture is None or self._picture[0] is not content:
                self._picture = content, await asyncio.to_thread(picture, content)
        return self._picture[1]


class LiveViews:
    """The Live of each attempt, for all pages."""

    def __init__(self) -> None:
        self._views: dict[str, Live] = {}

    def of(self, stats: JobStats) -> Live:
        """Return the Live of these figures."""
        found = self._views.get(stats.job)
        if found is None or found.stats is not stats:
            if len(self._views) > 100:
                self._views.clear()
            found = self._views[stats.job] = Live(stats)
        return found


def _drawn(points: Sequence[tuple[int, float]]) -> Points:
    """Return points in a chart's form; a value that is not finite becomes a gap (None)."""
    return [(step, float(f"{value:.6g}") if math.isfinite(value) else None) for step, value in points]


def picture(content: Mapping[str, Any]) -> Picture:
    """Return the picture of a timeline.json in milliseconds: the measured step and, if there is a prediction, the
    predicted one beneath."""
    n_workers = len(content["workers"])
    measured, predicted = _timed(content["actions"]), _timed(content["predicted"])
    named = (("measured", measured), ("predicted by the schedule's dry run", predicted))
    found = make_picture([(title, actions) for title, actions in named if actions], n_workers)
    said = ", ".join(f"{p.title}: {p.end:.2f} ms, idle {share(p.idle)}" for p in found.panels)
    return replace(found, summary=f"Step {content['step']}, {n_workers} workers; {said}")


def _timed(actions: Sequence[Sequence[Any]]) -> list[Timed]:
    return [(worker, Action.parse(text), start / 1e3, end / 1e3) for worker, text, start, end in actions]
