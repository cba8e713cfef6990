"""The pictures of a job's page. Each `show` sends only changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from cluster.dashboard import models
from cluster.dashboard.charts import Bars
from cluster.dashboard.frame import heading
from cluster.dashboard.live import Live
from cluster.dashboard.parts import fill_table, kinds_key, table
from cluster.dashboard.picture import Picture, PictureView
from cluster.dashboard.planned import UNIT, PlanView
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
    """The picture of the last sampled step; before there is one, that of the plan's dry run."""

    def __init__(self, record: JobRecord) -> None:
        with ui.element("section").classes("panel pipeline") as self._place:
            self._title = heading("The pipeline")
            self._gain = ui.label().props("role=note")
            self._view = PictureView(unit="ms", label="The actions of each worker in one step")
            with ui.element("div") as self._key:
                kinds_key()
            self._said = ui.label().classes("muted small")
        self._gain.set_visibility(False)
        self._view.gantt.chart.set_visibility(False)
        self._key.set_visibility(False)
        self._shown: Picture | None = None
        self._measured = False
        self._failed: Action | None = None
        self._why = ""
        self.without_picture(record, looked=False)

    def without_picture(self, record: JobRecord, *, looked: bool) -> None:
        """If no sampled step is drawn, show the reason. `looked`: the job's figures have been read."""
        self._place.set_visibility(self._shown is not None or begun(record))
        if not self._measured:
            self._why = no_picture(record.state.ended, record.attempt, record.step, looked=looked)
            self._write_caption()

    def plan(self, found: PlanView) -> None:
        """Say what the search for the schedule gained; draw the plan's dry run unless a sampled step is drawn."""
        self._gain.set_text(found.gain)
        self._gain.set_visibility(bool(found.gain))
        if not self._measured and found.picture is not None:
            self._view.gantt.measure_in(UNIT)
            self._draw(found.picture)

    async def show(self, live: Live) -> None:
        """Draw the last sampled step, if it is new."""
        picture = await live.picture()
        if picture is not None and picture is not self._shown:
            self._measured, self._why = True, ""
            self._view.gantt.measure_in("ms")
            self._draw(picture)

    def failed(self, action: Action) -> None:
        """Mark the action that failed, in whichever picture is shown."""
        self._failed = action
        if self._shown is not None:
            self._draw(self._shown)

    def _draw(self, picture: Picture) -> None:
        if self._shown is None:
            self._view.gantt.chart.set_visibility(True)
            self._key.set_visibility(True)
        self._shown = picture
        self._place.set_visibility(True)
        self._view.show(picture, self._failed)
        self._write_caption()

    def _write_caption(self) -> None:
        told = []
        if self._shown is not None:
            marked = "" if self._failed is None else f". {self._failed}, which failed, has a red frame"
            told = [f"{self._shown.summary}{marked}.", "Hold Ctrl and turn the wheel to zoom."]
        self._said.set_text(" ".join(filter(None, [*told, self._why])))


def begun(record: JobRecord) -> bool:
    """Whether the job has begun to train. A job that waits or starts has no figures yet."""
    return bool(record.attempt and (record.step or record.state.ended or record.state.name == "RUNNING"))


def no_picture(ended: bool, attempt: int, steps: int, *, looked: bool) -> str:
    """Return why no step of a job is drawn. `steps`: the number of steps done in its last attempt. `looked`: the job's
    figures have been read."""
    if not steps:
        if not ended:
            return "The picture appears after the first steps."
        if attempt < 1:
            return "The job never started."
        return "The job did no step." if attempt == 1 else f"Attempt {attempt} did no step."
    if not looked:
        return "Reading the job's figures …"
    return "None of the job's steps was sampled." if ended else "The picture appears when a step is sampled."


class Times:
    """How the workers spend their time, and the bubble of each worker."""

    def __init__(self) -> None:
        with ui.element("div").classes("grid") as self._place:
            with ui.element("section").classes("panel"):
                heading("Where the time goes")
                self._bars = Bars("Share of each worker's time by kind of work", form="share", most=1.0)
                with ui.element("details"):
                    with ui.element("summary").classes("small muted"):
                        ui.label("The same in seconds, since the attempt began").style("display: inline")
                    self._table = ui.element("div")
                    self._body: ui.element | None = None
            with ui.element("section").classes("panel"):
                heading("Bubble by worker, last seconds")
                self._bubbles = Bars("Measured and predicted bubble of each worker", form="share", stacked=False)
        self._place.set_visibility(False)

    def show(self, accounts: models.AttemptAccounts) -> None:
        """Draw the times since the attempt began, and the last bubbles."""
        self._place.set_visibility(True)
        rows, seconds = lanes(accounts)
        kinds = [kind for kind in (*STAGE_KINDS, *WORKER_KINDS) if any(row.get(kind, 0) > 0 for row in seconds)]
        names = worker_names(accounts)
        self._bars.show(
            names,
            {_NAMES[kind]: shares for kind, shares in worker_shares(accounts, kinds).items()},
            {_NAMES[kind]: f"var(--k-{kind})" for kind in kinds},
        )
        self._fill(rows, kinds, seconds)
        self._bubbles.show(names, worker_bubbles(accounts), {"measured": "var(--c1)", "predicted": "var(--c4)"})

    def _fill(self, rows: Sequence[str], kinds: Sequence[str], seconds: Sequence[Mapping[str, float]]) -> None:
        if self._body is None or len(list(self._body)) != len(kinds) + 1:
            self._table.clear()
            with self._table:
                self._body = table("", *rows)
        fill_table(self._body, seconds_cells(kinds, seconds))


def seconds_cells(kinds: Sequence[str], seconds: Sequence[Mapping[str, float]]) -> list[tuple[str, ...]]:
    """Return the rows of the table in seconds, with a column for each of `seconds`; the last row has the sums."""
    cells = [(_NAMES[kind], *(f"{column.get(kind, 0.0):.2f}" for column in seconds)) for kind in kinds]
    return [*cells, ("all", *(f"{sum(column.values()):.2f}" for column in seconds))]


def worker_names(accounts: models.AttemptAccounts) -> list[str]:
    """Return the workers' names: `stage 2` for a worker that holds one stage, else `worker 1: stages 1, 3`."""
    found = []
    for worker in accounts.workers:
        stages = [str(stage.stage) for stage in accounts.stages if stage.worker == worker.worker]
        found.append(
            f"stage {stages[0]}" if len(stages) == 1 else f"worker {worker.worker}: stages {', '.join(stages)}"
        )
    return found


def worker_shares(accounts: models.AttemptAccounts, kinds: Sequence[str]) -> dict[str, list[float]]:
    """Return the shares of each worker's time by kind, over all its stages; the shares of a worker sum to 1."""
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for worker in accounts.workers:
        parts = [worker.seconds, *(stage.seconds for stage in accounts.stages if stage.worker == worker.worker)]
        for kind in kinds:
            seconds = sum(part.get(kind, 0.0) for part in parts)
            found[kind].append(round(seconds / worker.wall_seconds, 4) if worker.wall_seconds else 0.0)
    return found


def worker_bubbles(accounts: models.AttemptAccounts) -> dict[str, list[float]]:
    """Return the measured and, if it is known, the predicted bubble of each worker, over all its stages. The workers'
    mean is the job's bubble."""
    workers = [worker.worker for worker in accounts.workers]
    found = {"measured": [sum(s.bubble for s in accounts.stages if s.worker == worker) for worker in workers]}
    if all(stage.bubble_predicted is not None for stage in accounts.stages):
        found["predicted"] = [
            sum(s.bubble_predicted or 0.0 for s in accounts.stages if s.worker == worker) for worker in workers
        ]
    return found


def lanes(accounts: models.AttemptAccounts) -> tuple[list[str], list[dict[str, float]]]:
    """Return the columns of the table, as names and seconds by kind: one for a worker that holds one stage; else one
    for each of its stages, and one for the time that belongs to none of them."""
    rows, seconds = [], []
    for worker in accounts.workers:
        stages = [stage for stage in accounts.stages if stage.worker == worker.worker]
        if len(stages) == 1:
            rows.append(f"stage {stages[0].stage}")
            seconds.append({**stages[0].seconds, **worker.seconds})
            continue
        for stage in stages:
            rows.append(f"worker {worker.worker}, stage {stage.stage}")
            seconds.append(stage.seconds)
        rows.append(f"worker {worker.worker}, no stage")
        seconds.append(worker.seconds)
    return rows, seconds


class Memory:
    """The bytes that each stage holds, and the peak of each process beside its limit."""

    def __init__(self) -> None:
        with ui.element("section").classes("panel") as self._place:
            heading("Memory by stage")
            self._bars = Bars("Bytes that each stage holds by kind", form="bytes")
            self._table = table("stage", "worker", "holds", "activations", "peak of the process", "limit")
        self._place.set_visibility(False)
        self._shown: Any = None

    def show(self, timeline: Mapping[str, Any]) -> None:
        """Draw the memory in a sampled step."""
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
