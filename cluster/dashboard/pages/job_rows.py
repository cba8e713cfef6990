"""The rows of the list of jobs: each is made once for its job, and then changed in place."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nicegui import ui

from cluster.dashboard.job_progress import percent, time_left
from cluster.dashboard.parts import copy_button, explained, text
from cluster.dashboard.texts import clock, spark
from cluster.service.entry import JobView
from cluster.service.job_stats import JobStats
from cluster.service.records import JobRecord
from coordinator import run_files
from coordinator.texts import number, per_second, share, span

_Act = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class RowView:
    """The texts of a row; an empty one is hidden. `progress` is the per cent of its steps, None if the job has ended or
    the number of its steps is not known. `times` are the absolute times of `when`."""

    name: str
    state: str
    reason: str
    steps: str
    progress: float | None
    loss: str
    spark: str
    best: str
    validation: str
    stages: str
    schedule: str
    batch: str
    rate: str
    when: str
    submitted: str
    times: str
    ended: bool
    model: bool


def row_view(record: JobRecord, view: JobView, stats: JobStats | None, losses: list[float], now: float) -> RowView:
    """Return the row of a job. `losses` are for its small chart."""
    total = record.steps_total
    lines = view.reason.splitlines()
    return RowView(
        name=record.name,
        state=record.state.name,
        reason=lines[0][:300] if lines else "",
        steps=f"{record.step:,}" + ("" if total is None else f" of {total:,}, {percent(record)}%"),
        progress=None if not total or record.state.ended else round(100 * record.step / total, 1),
        loss="" if record.loss is None else number(record.loss),
        spark=spark(losses),
        best="" if record.best_validation_loss is None else number(record.best_validation_loss),
        validation="" if record.validation_accuracy is None else share(record.validation_accuracy),
        stages=str(record.stages or ""),
        schedule=record.schedule.rpartition("/")[2],
        batch=f"{record.batch_size:,}" if record.batch_size else "",
        rate="" if record.samples_per_second is None else per_second(record.samples_per_second),
        when=", ".join(filter(None, (_when(record, now), time_left(record, stats)))),
        submitted=f"submitted {time.strftime('%b %d, %H:%M', time.localtime(record.submitted_at))}",
        times=times_of(record),
        ended=record.state.ended,
        model=record.model_saved,
    )


class JobRow:
    """The elements of one row."""

    def __init__(self, job: str, *, stop: _Act, delete: _Act) -> None:
        with text("tr").props(f"data-job={job}") as self.element:
            with ui.element("td").classes("name"):
                self._name = ui.link("", f"/jobs/{job}")
                with ui.element("div").classes("muted small id"):
                    text("span", job)
                    copy_button(job, f"the id {job}")
            with ui.element("td").classes("why"):
                self._state = text("span").classes("state")
                self._reason = ui.label().classes("muted small")
            with ui.element("td").classes("steps"):
                text("span", "steps ").classes("what")
                self._steps = text("span")
                self._bar = ui.element("div").classes("bar").props("role=progressbar aria-valuemin=0 aria-valuemax=100")
                with self._bar:
                    self._done = ui.element("span")
            with ui.element("td").classes("loss"):
                self._what = text("span", "mean loss ").classes("what")
                self._loss = text("span").classes("number")
                with (
                    ui.element("svg")
                    .classes("spark")
                    .props('viewBox="0 0 96 24" preserveAspectRatio=none role=img') as self._spark
                ):
                    self._path = ui.element("path")
            self._best = self._figure("best", "best validation loss")
            self._validation = self._figure("accuracy", "validation accuracy")
            self._stages = self._figure("stages", "stages")
            self._schedule = self._figure("schedule", "schedule")
            self._batch = self._figure("batch", "batch")
            self._rate = self._figure("rate", "samples/s")
            with ui.element("td").classes("when"):
                self._when = text("span")
                self._submitted = ui.label().classes("muted small")
            with ui.element("td").classes("acts"):
                self._stop = text("button", "Stop").classes("act").props("type=button").on("click", lambda: stop(job))
                self._model = ui.link("Model", f"/api/jobs/{job}/files/{run_files.MODEL}").classes("act")
                self._delete = (
                    text("button", "Delete").classes("act").props("type=button").on("click", lambda: delete(job))
                )
        self._shown: RowView | None = None

    def _figure(self, name: str, what: str) -> tuple[ui.element, ui.label]:
        """Make a cell and its value; on a phone, `what` stands before the value."""
        with ui.element("td").classes(f"figure {name}") as cell:
            text("span", f"{what} ").classes("what")
            return cell, text("span").classes("number")

    def show(self, view: RowView) -> None:
        """Change what differs from the last view."""
        if view == self._shown:
            return
        if self._shown is None:
            self._name.set_text(view.name)
            for element, what in (
                (self._bar, "steps of"),
                (self._spark, "loss so far of"),
                (self._stop, "Stop"),
                (self._model, "Download the model of"),
                (self._delete, "Delete"),
            ):
                element.props["aria-label"] = f"{what} {view.name}"
        self._shown = view
        self._state.set_text(view.state)
        self._state.classes(replace=f"state {view.state}")
        self._bar.set_visibility(view.progress is not None)
        self._bar.props(f"aria-valuenow={round(view.progress or 0)}")
        self._done.style(f"width: {view.progress or 0}%")
        self._spark.set_visibility(bool(view.spark))
        self._path.props["d"] = view.spark
        self._path.update()
        self._what.set_visibility(bool(view.loss))
        for (cell, figure), content in (
            (self._best, view.best),
            (self._validation, view.validation),
            (self._stages, view.stages),
            (self._schedule, view.schedule),
            (self._batch, view.batch),
            (self._rate, view.rate),
        ):
            figure.set_text(content)
            cell.classes(add="" if content else "none", remove="none" if content else "")
        explained(self._when, view.times)
        for label, content in (
            (self._reason, view.reason),
            (self._steps, view.steps),
            (self._loss, view.loss),
            (self._when, view.when),
            (self._submitted, view.submitted),
        ):
            label.set_text(content)
            label.set_visibility(bool(content))
        self._stop.set_visibility(not view.ended)
        self._model.set_visibility(view.model)
        self._delete.set_visibility(view.ended)


def times_of(record: JobRecord) -> str:
    """Return when the job was submitted, started and ended, a line for each."""
    named = (("submitted", record.submitted_at), ("started", record.started_at), ("ended", record.ended_at))
    return "\n".join(f"{name} {clock(at)}" for name, at in named if at is not None)


def _when(record: JobRecord, now: float) -> str:
    if record.started_at is None:
        return f"waits {span(now - record.submitted_at)}" if not record.state.ended else "never started"
    took = (record.ended_at or now) - record.started_at
    return f"took {span(took)}" if record.state.ended else f"runs {span(took)}"
