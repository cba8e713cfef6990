"""The picture of a step: workers as rows, actions as bars, bubbles as dashed gaps; several panels on one time axis."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nicegui import ui

from stages.actions import Action, Kind

_KINDS = {Kind.FORWARD: 0, Kind.BACKWARD_INPUT: 1, Kind.BACKWARD_WEIGHT: 2}
BUBBLE = 3
"""The number of a bubble among the kinds of bars."""
FAILED = 1
"""The ninth number of a bar whose action failed. The other bars of such a panel have 0 there; bars of other panels have
only eight numbers, or ten: the tenth is the worker's number, if not all workers are drawn."""
_LANE, _LOW_LANE, _HEAD, _FOOT, _GAP = 32, 18, 28, 44, 12  # pixels
_MANY = 12  # with more workers than this, the lanes are low
MOST_BARS = 3000
"""The most actions that a panel draws at once. Of a larger step it draws a part, and the reader can choose others."""
_FIRST_HUE, _LAST_HUE = 215, 35  # from blue over green to orange, so that the order of micro-batches is visible

Timed = tuple[int, Action, float, float]
"""Worker, action, start, end."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel, of the time from `since` to `until`. `bars` are the chart's data: [worker, start, end, kind, stage,
    micro-batch, hue, with stage]; the bubbles come first, so that they lie behind. `end` is the end of the last action,
    drawn or not, and `idle` the share of the workers' time until then in which they wait."""

    title: str
    bars: Sequence[Sequence[float]]
    n_workers: int
    end: float
    idle: float
    since: float
    until: float
    workers: Sequence[int] | None = None
    """The numbers of the workers that are drawn; None for all."""
    lane: int | None = None
    """The height of a worker's lane in pixels; None: by the number of workers."""


def panel(
    title: str,
    actions: Iterable[Timed],
    n_workers: int,
    *,
    shortest: float = 0.0,
    since: float = 0.0,
    until: float = float("inf"),
) -> Panel:
    """Return the panel of these actions (F, I and W). A gap in a lane that is longer than `shortest` is a bubble.
    Actions that end before `since`, or begin at `until` or later, are not drawn, but `end` and `idle` include them."""
    lanes: list[list[Timed]] = [[] for _ in range(n_workers)]
    for timed in actions:
        lanes[timed[0]].append(timed)
    everything = [timed for lane in lanes for timed in lane]
    end = max((timed[3] for timed in everything), default=0.0)
    last = max((timed[1].micro_batch for timed in everything), default=0)
    several = any(len({timed[1].stage for timed in lane}) > 1 for lane in lanes)
    bubbles = [bubble for worker, lane in enumerate(lanes) for bubble in _bubbles(lane, worker, end, shortest)]
    bars: list[list[float]] = [
        [bar[0], max(bar[1], since), min(bar[2], until), *bar[3:]]
        for bar in bubbles
        if bar[1] < until and bar[2] > since
    ]
    for worker, action, start, stop in everything:
        if start >= until or stop <= since:
            continue
        hue = _FIRST_HUE + (_LAST_HUE - _FIRST_HUE) * action.micro_batch / max(1, last)
        kind = _KINDS[action.kind]
        bars.append([worker, start, stop, kind, action.stage, action.micro_batch, round(hue), int(several)])
    busy = sum(stop - start for _, _, start, stop in everything)
    idle = 1 - busy / (end * n_workers) if end else 0.0
    return Panel(title, bars, n_workers, end, idle, since, min(end, until))


def windows(panels: Sequence[Sequence[Timed]], most: int) -> list[tuple[float, float]]:
    """Return the (since, until) of the parts in which these actions are drawn, in order: at most `most` actions begin
    in a part of any panel. The last part has no end."""
    starts = [sorted(timed[2] for timed in actions) for actions in panels]
    found, since, places = [], 0.0, [0] * len(starts)
    while any(place + most < len(times) for place, times in zip(places, starts, strict=True)):
        until = min(
            times[place + most] for place, times in zip(places, starts, strict=True) if place + most < len(times)
        )
        if until <= since:
            break  # more than `most` actions begin at the same time
        found.append((since, until))
        since, places = until, [bisect_left(times, until) for times in starts]
    return [*found, (since, float("inf"))]


def _bubbles(lane: list[Timed], worker: int, end: float, shortest: float) -> list[list[float]]:
    spans = [(start, stop) for _, _, start, stop in sorted(lane, key=lambda timed: timed[2])]
    return bubbles_between(spans, worker, end, shortest)


def bubbles_between(spans: Iterable[tuple[float, float]], row: int, end: float, shortest: float) -> list[list[float]]:
    """Return the bars of the gaps between spans, in their order, that are longer than `shortest`."""
    found, free = [], 0.0
    for start, stop in spans:
        if start - free > shortest:
            found.append([row, free, start, BUBBLE, -1, -1, 0, 0])
        free = max(free, stop)
    if end - free > shortest:
        found.append([row, free, end, BUBBLE, -1, -1, 0, 0])
    return found


def marked(panels: Sequence[Panel], action: Action) -> list[Panel]:
    """Return the panels with the bars of this action marked as failed; for a B, both its I and its W."""
    kinds = {Kind.BACKWARD: (1, 2)}.get(action.kind) or (_KINDS[action.kind],)

    def is_it(bar: Sequence[float]) -> bool:
        return bar[3] in kinds and (bar[4], bar[5]) == (action.stage, action.micro_batch)

    return [replace(p, bars=[[*bar, FAILED if is_it(bar) else 0] for bar in p.bars]) for p in panels]


_NO_SHAPE: tuple[object, ...] = ()


class Gantt:
    """The chart: panels beneath each other on the same time axis. `unit` is ms, or the unit of a dry run's times."""

    def __init__(self, *, unit: str, label: str) -> None:
        self.unit, self._shape = unit, _NO_SHAPE
        self.chart = ui.echart({}, renderer="svg").classes("gantt").props(f'role=img aria-label="{label}"')
        self._label = label

    def measure_in(self, unit: str) -> None:
        """Draw the next panels in another unit."""
        if unit != self.unit:
            self.unit, self._shape = unit, _NO_SHAPE

    def show(self, panels: Sequence[Panel], summary: str) -> None:
        """Draw the panels. `summary` describes the picture in words, for screen readers."""
        shape = (len(panels), max((p.n_workers for p in panels), default=0), tuple(p.workers for p in panels))
        since = min((p.since for p in panels), default=0.0)
        end = max((p.until for p in panels), default=0.0) or 1.0
        aria = {"enabled": True, "label": {"description": f"{self._label}. {summary}"}}
        if shape != self._shape:
            self._shape = shape
            options = _options(panels, since, end, self.unit)
            self.chart.options.clear()
            self.chart.options.update(options | {"aria": aria})
            self.chart.style(f"height: {_height(panels)}px")
            self.chart.update()
            return
        self.chart.run_chart_method(
            "setOption",
            {
                "aria": aria,
                "title": [{"text": p.title} for p in panels],
                "xAxis": [{"min": since, "max": end} for _ in panels],
                "series": [{"data": p.bars, "name": p.title} for p in panels],
            },
        )


def _height(panels: Sequence[Panel]) -> int:
    return sum(_HEAD + _lane(p) * p.n_workers + _GAP for p in panels) - _GAP + _FOOT


def _lane(p: Panel) -> int:
    """The height of a worker's lane in pixels: lower for many workers, so that all are visible at once."""
    if p.lane is not None:
        return p.lane
    return _LANE if p.n_workers <= _MANY else _LOW_LANE


def _left(panels: Sequence[Panel]) -> int:
    """The place of the workers' names in pixels."""
    return 58 if all(max(p.workers or (0,)) < 1000 for p in panels) else 76


def _options(panels: Sequence[Panel], since: float, end: float, unit: str) -> dict[str, Any]:
    tops, top = [], 0
    for p in panels:
        tops.append(top)
        top += _HEAD + _lane(p) * p.n_workers + _GAP
    last = len(panels) - 1
    text = {"color": "var(--muted)", "fontFamily": "inherit", "fontSize": 11}
    return {
        "animation": False,
        "title": [
            {
                "text": p.title,
                "left": 0,
                "top": tops[i] + 4,
                "padding": 0,
                "textStyle": {"color": "var(--text)", "fontFamily": "inherit", "fontSize": 13, "fontWeight": 500},
            }
            for i, p in enumerate(panels)
        ],
        "grid": [
            {"left": _left(panels), "right": 10, "top": tops[i] + _HEAD, "height": _lane(p) * p.n_workers}
            for i, p in enumerate(panels)
        ],
        "tooltip": {
            "trigger": "item",
            "confine": True,
            "backgroundColor": "var(--panel)",
            "borderColor": "var(--line)",
            "textStyle": {"color": "var(--text)", "fontFamily": "inherit", "fontSize": 12},
            ":formatter": f'pipetrain.tip("{unit}")',
        },
        "xAxis": [
            {
                "type": "value",
                "gridIndex": i,
                "min": since,
                "max": end,
                "splitLine": {"show": False},
                "axisLine": {"show": i == last, "lineStyle": {"color": "var(--line)"}},
                "axisTick": {"show": i == last, "lineStyle": {"color": "var(--line)"}},
                "axisLabel": {
                    "show": i == last,
                    "hideOverlap": True,
                    "showMinLabel": False if since else None,
                    "showMaxLabel": False,
                    ":formatter": "pipetrain.number",
                    **text,
                },
                "name": f"{unit} from the step's first action" if i == last else "",
                "nameLocation": "middle",
                "nameGap": 26,
                "nameTextStyle": text,
            }
            for i in range(len(panels))
        ],
        "yAxis": [
            {
                "type": "category",
                "gridIndex": i,
                "inverse": True,
                "data": [f"worker {worker}" for worker in p.workers or range(p.n_workers)],
                "axisLine": {"show": False},
                "axisTick": {"show": False},
                "axisLabel": text,
            }
            for i, p in enumerate(panels)
        ],
        "dataZoom": [{"type": "inside", "xAxisIndex": list(range(len(panels))), "zoomOnMouseWheel": "ctrl"}],
        "series": [
            {
                "type": "custom",
                "name": p.title,
                "xAxisIndex": i,
                "yAxisIndex": i,
                ":renderItem": "pipetrain.bar",
                "encode": {"x": [1, 2], "y": 0},
                "emphasis": {"disabled": True},
                "data": p.bars,
            }
            for i, p in enumerate(panels)
        ],
    }
