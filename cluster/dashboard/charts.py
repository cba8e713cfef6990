"""Line charts and stacked bars. Their colours are names of the page's palette, so that they follow light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from cluster.dashboard.marks import NO_MARKS, Marks
from cluster.dashboard.parts import key

_TEXT = {"color": "var(--muted)", "fontFamily": "inherit", "fontSize": 11}
_TIP = {
    "confine": True,
    "backgroundColor": "var(--panel)",
    "borderColor": "var(--line)",
    "textStyle": {"color": "var(--text)", "fontFamily": "inherit", "fontSize": 12},
}
_BRUSH = {"yAxisIndex": "none", "brushStyle": {"color": "var(--accent)", "opacity": 0.2}}
"""The selection of steps by dragging; dashboard.js switches it on and sends the steps to the page."""
_MOST_DOTS = 20  # a line of at most so many points shows them as dots: a single point would not be seen
Point = tuple[int, float | None]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart. `color` is a name of the palette; dashes distinguish lines without colour."""

    name: str
    color: str
    dashed: bool = False


class Lines:
    """A chart of series over steps. `form` names the function of dashboard.js that formats the values: number, share or
    bytes."""

    def __init__(self, title: str, lines: Sequence[Line], *, form: str = "number", low: float | None = None) -> None:
        self.chart = (
            ui.echart(_lines(lines, form, low), renderer="svg")
            .classes("chart curve")
            .props(f'role=img aria-label="{title} over steps: {", ".join(line.name for line in lines)}"')
        )
        self._names = [line.name for line in lines]
        self._shown: list[Sequence[Point]] = []
        self._smoothing, self._marks = 1, NO_MARKS

    def logarithmic(self, yes: bool) -> None:
        """Set the vertical axis to a logarithmic scale, or to a linear one."""
        self.chart.options["yAxis"]["type"] = "log" if yes else "value"
        self.chart.update()

    def show(self, data: Sequence[Sequence[Point]], smoothing: int = 1, marks: Marks = NO_MARKS) -> None:
        """Draw the points of each line, each as the mean of about the last `smoothing` points, and the marks. Send
        nothing if they are drawn already. The legend has the lines with points: a job without validation has none for
        it."""
        same = len(self._shown) == len(data) and all(a is b for a, b in zip(self._shown, data, strict=True))
        if same and smoothing == self._smoothing and marks == self._marks:
            return
        first, self._shown, self._smoothing, self._marks = not self._shown, list(data), smoothing, marks
        series: list[dict[str, Any]] = [
            {"data": smoothed(points, smoothing), "showSymbol": len(points) <= _MOST_DOTS} for points in data
        ]
        series[0].update(marks.options())
        for own, new in zip(self.chart.options["series"], series, strict=True):
            own.update(new)
        legend = {"data": [name for name, points in zip(self._names, data, strict=True) if points]}
        self.chart.options["legend"].update(legend)
        if first:  # the browser silently ignores a method call before it has made the chart
            self.chart.update()
            return
        self.chart.run_chart_method("setOption", {"series": series, "legend": legend})


def smoothed(points: Sequence[Point], over: int) -> Sequence[Point]:
    """Return exponential means over about the last `over` points, without a bias towards 0 at the beginning. Gaps
    (None) stay gaps."""
    if over <= 1:
        return points
    keep, mean, weight = 1 - 1 / over, 0.0, 0.0
    found: list[Point] = []
    for step, value in points:
        if value is not None:
            mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        found.append((step, None if value is None else float(f"{mean / weight:.6g}")))
    return found


def _lines(lines: Sequence[Line], form: str, low: float | None) -> dict[str, Any]:
    return {
        "animation": False,
        "grid": {"left": 4, "right": 14, "top": 30 if len(lines) > 1 else 12, "bottom": 4, "containLabel": True},
        "legend": {"show": len(lines) > 1, "left": 0, "top": 0, "textStyle": _TEXT, "itemWidth": 22, "itemHeight": 8},
        "tooltip": {"trigger": "axis", **_TIP, ":valueFormatter": f"pipetrain.{form}"},
        "toolbox": {"show": True, "itemSize": 0, "showTitle": False, "feature": {"dataZoom": _BRUSH}},
        "xAxis": {
            "type": "value",
            "min": "dataMin",
            "max": "dataMax",
            # the last number ends at the axis, which has no room beside it for one such as 39,588
            "axisLabel": {**_TEXT, "hideOverlap": True, "alignMaxLabel": "right", ":formatter": "pipetrain.number"},
            "axisLine": {"lineStyle": {"color": "var(--line)"}},
            "axisTick": {"show": False},
            "splitLine": {"show": False},
            "minInterval": 1,
        },
        "yAxis": {
            "type": "value",
            "scale": low is None,
            "min": low,
            "splitNumber": 4,
            "axisLabel": {**_TEXT, ":formatter": f"pipetrain.{'percent' if form == 'share' else form}"},
            "splitLine": {"lineStyle": {"color": "var(--line)"}},
        },
        "series": [
            {
                "type": "line",
                "name": line.name,
                "data": [],
                "showSymbol": True,
                "symbol": "emptyCircle",
                "symbolSize": 5,
                "emphasis": {"disabled": True},
                "lineStyle": {
                    "width": 1.6,
                    "color": f"var(--{line.color})",
                    "type": [5, 4] if line.dashed else "solid",
                },
                "itemStyle": {"color": f"var(--{line.color})"},
            }
            for line in lines
        ],
    }


class Bars:
    """Horizontal bars: a row for each stage or worker, made of parts."""

    def __init__(self, title: str, *, form: str, most: float | None = None, stacked: bool = True) -> None:
        self._form, self._most, self._stacked = form, most, stacked
        self._shape: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self.chart = ui.echart({}, renderer="svg").classes("chart").props(f'role=img aria-label="{title}"')
        self._key = ui.element("div").classes("terms")

    def show(self, rows: Sequence[str], parts: Mapping[str, Sequence[Any]], colors: Mapping[str, str]) -> None:
        """Draw the rows with these labels: `parts[name][i]` is the part `name` of row i."""
        shape = (tuple(rows), tuple(parts))
        if shape == self._shape:
            self.chart.run_chart_method("setOption", {"series": [{"data": list(data)} for data in parts.values()]})
            return
        self._shape = shape
        self.chart.options.clear()
        self.chart.options.update(self._options(rows, parts, colors))
        lane = 30 if self._stacked else 18 * len(parts) + 12
        self.chart.style(f"height: {lane * len(rows) + 34}px")
        self.chart.update()
        self._key.clear()
        with self._key:
            for name in parts:
                key(name, f"background: {colors[name]}")

    def _options(self, rows: Sequence[str], parts: Mapping[str, Any], colors: Mapping[str, str]) -> dict[str, Any]:
        form = f"pipetrain.{self._form}"
        axis = "pipetrain.percent" if self._form == "share" else form
        if self._stacked:
            label = {"show": self._form == "share", ":formatter": "pipetrain.part", **_TEXT, "color": "var(--text)"}
            fit = {":labelLayout": "pipetrain.fit"}
        else:
            label = {"show": True, "position": "right", ":formatter": f"(p) => {form}(p.value)", **_TEXT}
            fit = {}
        return {
            "animation": False,
            "grid": {
                "left": 4,
                "right": 22 if self._stacked else 52,
                "top": 4,
                "bottom": 4,
                "containLabel": True,
            },
            "tooltip": {"trigger": "item", **_TIP, ":valueFormatter": form},
            "xAxis": {
                "type": "value",
                "min": 0,
                "max": self._most,
                "splitNumber": 4,
                "axisLabel": {**_TEXT, ":formatter": axis, "hideOverlap": True},
                "splitLine": {"lineStyle": {"color": "var(--line)"}},
            },
            "yAxis": {
                "type": "category",
                "inverse": True,
                "data": list(rows),
                "axisLabel": _TEXT,
                "axisLine": {"show": False},
                "axisTick": {"show": False},
            },
            "series": [
                {
                    "type": "bar",
                    "name": name,
                    **({"stack": "all", "barWidth": 20} if self._stacked else {"barWidth": 12}),
                    "data": list(data),
                    "label": label,
                    **fit,
                    "emphasis": {"disabled": True},
                    "itemStyle": {"color": colors[name], "borderColor": "var(--panel)", "borderWidth": 0.6},
                }
                for name, data in parts.items()
            ],
        }
