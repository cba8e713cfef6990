"""The curves of a job's page, with smoothing, a range of steps, and CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from cluster.dashboard.charts import Line, Lines
from cluster.dashboard.frame import heading
from cluster.dashboard.live import Live
from cluster.dashboard.marks import NO_MARKS
from cluster.dashboard.parts import key

Range = tuple[int, int] | None
"""The first and the last step that are drawn; None: all."""
_SMOOTHING = {1: "none", 10: "10 points", 30: "30 points", 100: "100 points"}
_MOST_STEPS = 2**53  # the largest integer that a browser's numbers hold exactly


@dataclass(frozen=True, slots=True)
class CurveKind:
    """A kind of chart: its lines, the series that they draw, and the format of their values."""

    title: str
    lines: Sequence[Line]
    series: Sequence[str]
    form: str = "number"
    low: float | None = None
    log: bool = False


KINDS = (
    CurveKind(
        "Loss",
        (Line("training", "c1"), Line("validation", "c2", dashed=True)),
        ("loss", "validation_loss"),
        log=True,
    ),
    CurveKind(
        "Accuracy",
        (Line("training", "c1"), Line("validation", "c2", dashed=True)),
        ("accuracy", "validation_accuracy"),
        "share",
    ),
    CurveKind("Throughput, samples/s", (Line("samples/s", "c3"),), ("samples_per_second",), low=0.0),
    CurveKind(
        "Bubble, idle share",
        (Line("measured", "c1"), Line("predicted", "c4", dashed=True)),
        ("bubble", "bubble_predicted"),
        "share",
        0.0,
    ),
    CurveKind("Gradient norm", (Line("gradient norm", "c2"),), ("grad_norm",), log=True),
    CurveKind("Learning rate", (Line("learning rate", "c4"),), ("learning_rate",)),
    CurveKind(
        "Memory of the job",
        (Line("largest worker", "c1"), Line("mean", "c3", dashed=True)),
        ("memory_most", "memory_mean"),
        "bytes",
        0.0,
    ),
)


def range_of(first: Any, last: Any) -> Range:
    """Return the range of an address or of two fields; None if they give no valid range, or all steps."""
    try:
        found = max(1, int(first or 1)), min(_MOST_STEPS, int(last or _MOST_STEPS))
    except (ValueError, TypeError, OverflowError):
        return None
    return found if found[0] <= found[1] and found != (1, _MOST_STEPS) else None


class Curves:
    """The charts of KINDS. `moved` is called with the range and the smoothing that the reader chose, as parameters of
    an address."""

    def __init__(self, job: str, steps: Range, smoothing: int, moved: Callable[[str], None]) -> None:
        self._job, self._steps, self._moved = job, steps, moved
        self._smoothing = smoothing if smoothing in _SMOOTHING else 1
        self._live: Live | None = None
        self._choosing = False
        with ui.element("section").classes("stack") as self._place:
            self._build_controls()
            with ui.element("div").classes("grid small-ones"):
                self._charts = [(kind, *self._chart(kind)) for kind in KINDS]
        self._place.set_visibility(False)
        ui.on("range", lambda event: self._choose(*event.args))

    def _build_controls(self) -> None:
        first, last = self._steps or (None, None)
        with ui.element("div").classes("line").props('role=group aria-label="what the curves show"'):
            heading("Curves")
            self._first = self._number("From step", first)
            self._last = self._number("To step", None if last == _MOST_STEPS else last)
            self._all = ui.button("All steps", color=None, on_click=lambda: self._choose(None, None)).classes("act")
            self._all.props("unelevated")
            ui.select(_SMOOTHING, label="Smoothing", value=self._smoothing, on_change=self._smooth).props(
                "outlined dense"
            ).style("min-width: 120px")
            ui.label("Or drag over a chart to choose steps.").classes("muted small")
        with ui.element("div").classes("terms") as self._marks:
            key("a checkpoint", "background: none; border-left: 2px dotted var(--c3); width: 0; height: 14px")
            key("a worker was lost", "background: var(--bad); width: 2px; height: 14px")
            key("a fault on request", "background: none; border-left: 2px dashed var(--c4); width: 0; height: 14px")
            key("steps made again", "background: color-mix(in srgb, var(--bad) 12%, transparent); height: 14px")

    def _number(self, label: str, value: float | None) -> ui.number:
        field = ui.number(label, value=value, min=1, precision=0, on_change=self._typed)
        return field.props("outlined dense debounce=400").style("width: 110px")

    def _chart(self, kind: CurveKind) -> tuple[ui.element, Lines, ui.link]:
        with ui.element("section").classes("panel") as place:
            with ui.element("div").classes("line apart"):
                heading(kind.title)
                with ui.element("div").classes("line"):
                    if kind.log:
                        switch = ui.checkbox("log scale").props("dense size=xs")
                    link = ui.link("CSV", "").classes("act").props(f'aria-label="CSV of {kind.title}"')
            chart = Lines(kind.title, kind.lines, form=kind.form, low=kind.low)
            if kind.log:
                switch.on_value_change(lambda event: chart.logarithmic(event.value))
        place.set_visibility(False)  # hidden until it has a point
        return place, chart, link

    def _typed(self) -> None:
        if not self._choosing:
            self._set(range_of(self._first.value, self._last.value))

    def _choose(self, first: float | None, last: float | None) -> None:
        """Show these steps; all steps if they are None."""
        steps = None if first is None or last is None else range_of(max(1, round(first)), round(last))
        begin, end = steps or (None, None)
        self._choosing = True  # the fields change one after the other: ignore the range in between
        self._first.set_value(begin)
        self._last.set_value(None if end == _MOST_STEPS else end)
        self._choosing = False
        self._set(steps)

    def _set(self, steps: Range) -> None:
        if steps != self._steps:
            self._steps = steps
            self._describe_range()

    def _smooth(self, event: Any) -> None:
        self._smoothing = event.value
        self._describe_range()

    def _describe_range(self) -> None:
        first, last = self._steps or (None, None)
        chosen = {"from": first, "to": None if last == _MOST_STEPS else last}
        chosen["smooth"] = self._smoothing if self._smoothing > 1 else None
        self._moved(urlencode({name: value for name, value in chosen.items() if value is not None}))
        if self._live is not None:
            self.show(self._live)

    def show(self, live: Live) -> None:
        """Draw the curves, if there is anything new."""
        self._live = live
        any_at_all, marks = False, live.marks()
        self._marks.set_visibility(marks != NO_MARKS)
        for kind, place, chart, link in self._charts:
            data = [live.points(name, self._steps) for name in kind.series]
            any_at_all |= any(live.stats.series[name].version for name in kind.series)
            place.set_visibility(any(data))
            if not any(data):
                continue  # ECharts loops without end on an axis without values
            drawn = [point[0] for points in data for point in points]
            chart.show(data, self._smoothing, marks.within(min(drawn), max(drawn)))
            first, last = self._steps or (1, _MOST_STEPS)
            chosen = [("series", name) for name in kind.series] + [("first", str(first)), ("last", str(last))]
            target = f"/api/jobs/{self._job}/rows.csv?{urlencode(chosen)}"
            if link.props.get("href") != target:
                link.props["href"] = target
                link.update()
        self._place.set_visibility(any_at_all)
