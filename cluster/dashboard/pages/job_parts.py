"""The pictures of a job's page. Each `show` sends only what is new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from cluster.dashboard import models
from cluster.dashboard.charts import Bars, Line, Lines
from cluster.dashboard.frame import heading
from cluster.dashboard.gantt import Gantt, Panel, marked
from cluster.dashboard.live import Live
from cluster.dashboard.parts import fill_table, kinds_key, table
from cluster.service.records import JobRecord
from coordinator.texts import size
from stages.actions import Action
from stages.ledger import STAGE_KINDS, WORKER_KINDS

_NAMES = {
    "forward": "forward",
    "input_gradient": "input gradient",
    "weight_gradient": "weight gradient",
    "update": "update",
    "wait_warmup": "waiting for the first",
    "wait_steady": "waiting in between",
    "wait_drain": "waiting for the last",
    "send": "sending",
    "checkpoint": "checkpoint",
    "recovery": "recovery",
    "evaluation": "evaluation",
    "other": "other",
}
_MEMORY = ("weights", "gradients", "optimizer", "activations")
_MEMORY_COLORS = {
    "weights": "var(--k-forward)",
    "gradients": "var(--k-input_gradient)",
    "optimizer": "var(--k-update)",
    "activations": "var(--k-weight_gradient)",
}


class Pipeline:
    """The last sampled step, or why there is none."""

    def __init__(self, record: JobRecord) -> None:
        with ui.element("section").classes("panel pipeline") as self._place:
            self._title = heading("The pipeline")
            self._gantt = Gantt(unit="ms", label="What each worker did when, in the last sampled step")
            with ui.element("div") as self._key:
                kinds_key()
            self._said = ui.label().classes("muted small")
        self._gantt.chart.set_visibility(False)
        self._key.set_visibility(False)
        self._shown: Any = None
        self._drawn: tuple[Sequence[Panel], str] | None = None
        self._failed: Action | None = None
        self.without_picture(record, looked=False)

    def without_picture(self, record: JobRecord, *, looked: bool) -> None:
        """Say why no step is drawn, where none is. `looked`: what there is of the job has been read."""
        self._place.set_visibility(self._drawn is not None or begun(record))
        if self._shown is None:
            self._said.set_text(no_picture(record.state.ended, record.attempt, record.step, looked=looked))

    async def show(self, live: Live) -> None:
        """Draw it if there is a newer one."""
        picture = await live.picture()
        if picture is None or picture is self._shown:
            return
        self._shown = picture
        left_out = f"; {picture.left_out}" if picture.left_out else ""
        self._draw(picture.panels, f"{picture.summary}{left_out}")

    def failed(self, action: Action, dry_run: Panel | None) -> None:
        """Mark the action that failed: in the last sampled step, or in the dry run if there is none."""
        self._failed = action
        if self._drawn is not None:
            self._draw(*self._drawn)
        elif dry_run is not None:
            self._gantt.unit = "F"
            self._shown = dry_run
            self._draw([dry_run], f"{dry_run.title}, as no step was sampled")

    def _draw(self, panels: Sequence[Panel], summary: str) -> None:
        if self._drawn is None:
            self._gantt.chart.set_visibility(True)
            self._key.set_visibility(True)
        self._drawn = panels, summary
        self._place.set_visibility(True)
        if self._failed is not None:
            panels = marked(panels, self._failed)
            summary += f". {self._failed}, which failed, has a red frame"
        self._gantt.show(panels, summary)
        self._said.set_text(f"{summary}. Hold Ctrl and turn the wheel to look closer.")


def begun(record: JobRecord) -> bool:
    """Whether there is anything to see of its training: a job that waits or starts has no figures yet."""
    return bool(record.attempt and (record.step or record.state.ended or record.state.name == "RUNNING"))


def no_picture(ended: bool, attempt: int, steps: int, *, looked: bool) -> str:
    """Why no step of a job is drawn: `steps` were made in its last attempt. `looked`: what there is has been read."""
    if not steps:
        if not ended:
            return "Drawn once the first steps are made."
        if attempt < 1:
            return "It never started."
        return "It made no step." if attempt == 1 else f"Attempt {attempt} made no step."
    if not looked:
        return "Being read."
    return "None of its steps was sampled." if ended else "Drawn once a step is sampled."


class Curves:
    """Loss, accuracy, throughput and bubble over steps."""

    def __init__(self) -> None:
        with ui.element("div").classes("grid small-ones"):
            self._charts = {
                names: self._chart(title, lines, form, low)
                for title, lines, names, form, low in (
                    (
                        "Loss",
                        (Line("training", "c1"), Line("validation", "c2", dashed=True)),
                        ("loss", "validation_loss"),
                        "number",
                        None,
                    ),
                    (
                        "Accuracy",
                        (Line("training", "c1"), Line("validation", "c2", dashed=True)),
                        ("accuracy", "validation_accuracy"),
                        "share",
                        None,
                    ),
                    ("Throughput, samples/s", (Line("samples/s", "c3"),), ("samples_per_second",), "number", 0.0),
                    (
                        "Bubble, idle share of the workers' time",
                        (Line("measured", "c1"), Line("predicted", "c4", dashed=True)),
                        ("bubble", "bubble_predicted"),
                        "share",
                        0.0,
                    ),
                )
            }

    def _chart(self, title: str, lines: Sequence[Line], form: str, low: float | None) -> tuple[ui.element, Lines]:
        with ui.element("section").classes("panel") as place:
            with ui.element("div").classes("line apart"):
                heading(title)
                place_of_switch = ui.element("div")
            chart = Lines(title, lines, form=form, low=low)
            if title == "Loss":
                with place_of_switch:
                    ui.checkbox("log scale", on_change=lambda event: chart.logarithmic(event.value)).props(
                        "dense size=xs"
                    )
        place.set_visibility(False)  # until there is a point: an empty chart says nothing
        return place, chart

    def show(self, live: Live) -> None:
        """Draw what came."""
        for names, (place, chart) in self._charts.items():
            data = [live.points(name) for name in names]
            place.set_visibility(any(data))
            chart.show(data)


class Times:
    """Where the time goes, and the bubble of each stage."""

    def __init__(self) -> None:
        with ui.element("div").classes("grid") as self._place:
            with ui.element("section").classes("panel"):
                heading("Where the time goes")
                self._bars = Bars("Share of each worker's time by what it did", form="share", most=1.0)
                with ui.element("details"):
                    with ui.element("summary").classes("small muted"):
                        ui.label("The same in seconds, since the attempt began").style("display: inline")
                    self._table = ui.element("div")
                    self._body: ui.element | None = None
            with ui.element("section").classes("panel"):
                heading("Bubble by stage, last seconds")
                self._bubbles = Bars("Measured and predicted bubble of each stage", form="share", stacked=False)
        self._place.set_visibility(False)

    def show(self, accounts: models.AttemptAccounts) -> None:
        """Draw the totals."""
        self._place.set_visibility(True)
        rows, seconds, wall = lanes(accounts)
        kinds = [kind for kind in (*STAGE_KINDS, *WORKER_KINDS) if any(row.get(kind, 0) > 0 for row in seconds)]
        self._bars.show(
            rows,
            {
                _NAMES[kind]: [
                    round(row.get(kind, 0.0) / w, 4) if w else 0 for row, w in zip(seconds, wall, strict=True)
                ]
                for kind in kinds
            },
            {_NAMES[kind]: f"var(--k-{kind})" for kind in kinds},
        )
        self._fill(rows, kinds, seconds)
        parts = {"measured": [stage.bubble for stage in accounts.stages]}
        if all(stage.bubble_predicted is not None for stage in accounts.stages):
            parts["predicted"] = [stage.bubble_predicted or 0.0 for stage in accounts.stages]
        names = [f"stage {stage.stage}" for stage in accounts.stages]
        self._bubbles.show(names, parts, {"measured": "var(--c1)", "predicted": "var(--c4)"})

    def _fill(self, rows: Sequence[str], kinds: Sequence[str], seconds: Sequence[Mapping[str, float]]) -> None:
        if self._body is None or len(list(self._body)) != len(kinds) + 1:
            self._table.clear()
            with self._table:
                self._body = table("", *rows)
        fill_table(self._body, seconds_cells(kinds, seconds))


def seconds_cells(kinds: Sequence[str], seconds: Sequence[Mapping[str, float]]) -> list[tuple[str, ...]]:
    """The rows of the table in seconds, a column each of `seconds`; the last one is each column's sum."""
    cells = [(_NAMES[kind], *(f"{column.get(kind, 0.0):.2f}" for column in seconds)) for kind in kinds]
    return [*cells, ("all", *(f"{sum(column.values()):.2f}" for column in seconds))]


def lanes(accounts: models.AttemptAccounts) -> tuple[list[str], list[dict[str, float]], list[float]]:
    """A row a worker that holds one stage; for one that holds several a row a stage, and one for what it does for none.
    Names, seconds by kind, and the worker's wall time, which shares are of."""
    rows, seconds, wall = [], [], []
    for worker in accounts.workers:
        stages = [stage for stage in accounts.stages if stage.worker == worker.worker]
        if len(stages) == 1:
            rows.append(f"stage {stages[0].stage}")
            seconds.append({**stages[0].seconds, **worker.seconds})
            wall.append(worker.wall_seconds)
            continue
        for stage in stages:
            rows.append(f"worker {worker.worker}, stage {stage.stage}")
            seconds.append(stage.seconds)
        rows.append(f"worker {worker.worker}, no stage")
        seconds.append(worker.seconds)
        wall += [worker.wall_seconds] * (len(stages) + 1)
    return rows, seconds, wall


class Memory:
    """What each stage holds, and each process against its limit."""

    def __init__(self) -> None:
        with ui.element("section").classes("panel") as self._place:
            heading("Memory by stage")
            self._bars = Bars("Bytes that each stage holds by kind", form="bytes")
            self._table = table("stage", "worker", "holds", "activations", "peak of the process", "limit")
        self._place.set_visibility(False)
        self._shown: Any = None

    def show(self, timeline: Mapping[str, Any]) -> None:
        """Draw what a sampled step held."""
        if timeline is self._shown:
            return
        self._shown = timeline
        self._place.set_visibility(True)
        memory, workers = timeline["memory"], {w["worker"]: w for w in timeline["workers"]}
        self._bars.show(
            [f"stage {held['stage']}" for held in memory],
            {kind: [held[kind] for held in memory] for kind in _MEMORY},
            _MEMORY_COLORS,
        )
        fill_table(self._table, [_memory_row(held, workers[held["worker"]]) for held in memory])


def _memory_row(held: Mapping[str, Any], worker: Mapping[str, Any]) -> tuple[str, ...]:
    limit = worker["limit_bytes"]
    return (
        str(held["stage"]),
        f"{worker['worker']} on {worker['host']}, process {worker['pid']}",
        size(sum(held[kind] for kind in _MEMORY)),
        f"{size(held['activations'])} (planned: {size(held['activations_predicted'])})",
        size(worker["peak_job_bytes"]),
        "none" if limit is None else size(limit),
    )
