"""/jobs/ID: one job, live, with its pipeline in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Annotated

from fastapi import Query, Response
from fastapi.responses import RedirectResponse
from nicegui import ui

from cluster.dashboard import facts as api_facts
from cluster.dashboard.buttons import ask_and_resume, attempt, confirm_delete, stop_job
from cluster.dashboard.failure_view import FailureView, failure_view
from cluster.dashboard.frame import MADE_WITHIN_S, every_tick, frame, heading
from cluster.dashboard.job_progress import percent, tab_title, time_left
from cluster.dashboard.live import Live, LiveViews
from cluster.dashboard.pages.curves import Curves, Range, range_of
from cluster.dashboard.pages.evaluation_panel import EvaluationPanel, evaluation_view
from cluster.dashboard.pages.job_parts import Memory, Pipeline, Times, begun
from cluster.dashboard.pages.job_tabs import Tabs
from cluster.dashboard.pages.job_warnings import Warnings
from cluster.dashboard.pages.survival_panel import SurvivalPanel
from cluster.dashboard.parts import copy_button, facts, text
from cluster.dashboard.planned import planned
from cluster.dashboard.site import Site
from cluster.dashboard.texts import clock
from cluster.run.why_slow import why_slow_of
from cluster.service.job_stats import JobStats
from cluster.service.records import JobRecord
from coordinator import run_files
from coordinator.queue.job_states import Failed
from coordinator.texts import counted, number, share, size, span, step_time
from stages.errors import UnknownJob

FACTS = (
    "step",
    "mean loss",
    "validation loss",
    "validation accuracy",
    "perplexity",
    "bits/byte",
    "samples/s",
    "time of a step",
    "bubble, measured",
    "bubble, predicted",
    "last step",
    "running",
    "took",
    "time left",
    "place in the queue",
)
_LAST_EVENTS = 10  # the event of the job's end is among these
_SLOW_EVERY = 2  # ticks between looks at data that change slowly or are large
_ENDED_EVERY = 10  # ticks between looks at a job that has ended: only its deletion and its tabs can change the page


def register(site: Site) -> None:
    """Register the page."""
    live_views = LiveViews()

    @ui.page("/jobs/{job}", response_timeout=MADE_WITHIN_S)
    async def job_page(
        job: str, begin: Annotated[str, Query(alias="from")] = "", to: str = "", smooth: str = ""
    ) -> Response | None:
        try:
            record = await site.find(job)
        except UnknownJob as error:
            _unknown(str(error))
            return None
        if record.id != job:
            chosen = ui.context.client.request.url.query
            return RedirectResponse(f"/jobs/{record.id}{'?' if chosen else ''}{chosen}")
        with frame(f"{record.name} {record.id}"):
            page = _Job(site, live_views, record, range_of(begin, to), int(smooth) if smooth.isdecimal() else 1)
            every_tick(page.look)
        return None


def _unknown(said: str) -> None:
    ui.context.client.status_code = 404
    with frame("Unknown job"):
        heading("There is no such job", 1)
        ui.label(f"{said[:1].upper()}{said[1:]}")
        near = said.rpartition("did you mean ")[2].removesuffix("?") if "did you mean " in said else ""
        if near:
            ui.link(f"Job {near}", f"/jobs/{near}")
        ui.link("All jobs", "/")


class _Job:
    """The page of one reader."""

    def __init__(
        self, site: Site, live_views: LiveViews, record: JobRecord, steps: Range = None, smoothing: int = 1
    ) -> None:
        self._site, self._live_views, self._job = site, live_views, record.id
        self._ticks, self._title, self._planned_at = 0, "", -1
        self._gone = self._ended = False
        self._accounts: object = None
        self._stats: JobStats | None = None
        with ui.element("div").classes("line apart"):
            with ui.element("div").classes("title"):
                heading(record.name, 1)
                with ui.element("div").classes("muted small id"):
                    text("span", record.id)
                    copy_button(record.id, f"the id {record.id}")
            self._build_actions()
        with ui.element("section").classes("panel stack"):
            with ui.element("div").props("role=status"):
                self._state = ui.label()
                self._reason = ui.label().classes("muted").style("overflow-wrap: anywhere; white-space: pre-line")
            with ui.element("div").classes("line") as self._failed:
                self._failed_where = ui.label()
                self._failed_log = ui.button("", color=None, on_click=self._open_log).classes("act").props("unelevated")
            self._slow = ui.label().classes("slow").props("role=note")
            self._slow.set_visibility(False)
            self._warnings = Warnings(site, record)
            self._facts = facts(*FACTS)
            with ui.element("div").classes("bar") as self._bar:
                self._done = ui.element("span")
        with ui.element("section").classes("panel") as self._waiting:
            heading("What happens next")
            self._next = ui.label()
        self._pipeline = Pipeline(record)
        self._curves = Curves(record.id, steps, smoothing, self._moved)
        self._survival = SurvivalPanel(site.folder(record.id) / run_files.CHECKPOINTS)
        self._evaluation = EvaluationPanel()
        self._times = Times()
        self._memory = Memory()
        self._tabs = Tabs(site, record)
        self._failure: FailureView | None = None
        self._present(record)

    def _moved(self, chosen: str) -> None:
        ui.navigate.history.replace(f"/jobs/{self._job}{'?' if chosen else ''}{chosen}")

    def _build_actions(self) -> None:
        site, job = self._site, self._job

        async def delete() -> None:
            await confirm_delete(site, job, lambda: ui.navigate.to("/"))

        async def trace() -> None:
            steps = int(self._steps.value or 0)
            await attempt(
                site.trace(job, steps), f"The next {steps:,} steps are traced; then trace.json is among the files"
            )

        with ui.element("div").classes("line"):
            with ui.element("div").classes("line") as self._tracing:
                self._steps = (
                    ui.number("Steps", value=10, min=1, max=10_000).props("outlined dense").style("width: 84px")
                )
                ui.button("Trace", color=None, on_click=trace).classes("act").props("unelevated")
            self._trace = ui.link(run_files.TRACE, f"/api/jobs/{job}/files/{run_files.TRACE}").classes("act")
            self._model = ui.link("Download the model", f"/api/jobs/{job}/files/{run_files.MODEL}").classes("act")
            self._stop = (
                ui.button("Stop", color=None, on_click=lambda: stop_job(site, job)).classes("act").props("unelevated")
            )
            self._resume = ui.button("Go on", color=None, on_click=lambda: ask_and_resume(site, job))
            self._resume.classes("act").props("unelevated")
            self._delete = ui.button("Delete", color=None, on_click=delete).classes("act bad").props("unelevated")

    async def look(self) -> None:
        """Show the job's present state."""
        self._ticks += 1
        if self._gone or (self._ended and self._ticks % _ENDED_EVERY):
            return
        try:
            record = await self._site.find(self._job)
        except UnknownJob:
            self._gone = True
            self._state.set_text("DELETED")
            self._reason.set_text("This job was deleted.")
            self._reason.set_visibility(True)
            return
        await self._warnings.look(record)
        stats = self._stats = await self._site.archive.stats(record)
        self._present(record)
        slowly = self._ticks % _SLOW_EVERY == 1 or record.state.ended
        if stats is not None:
            await self._draw(record, self._live_views.of(stats), slowly)
        if slowly:
            await self._look_at_plan(record)
        self._pipeline.without_picture(record, looked=True)
        if isinstance(record.state, Failed) and self._failure is None:
            await self._show_failure(record)
        if slowly:
            found = await self._site.evaluation(record)
            self._evaluation.show(None if found is None else evaluation_view(found))
            await self._tabs.look(record)
            self._trace.set_visibility((self._site.folder(self._job) / run_files.TRACE).exists())
        self._ended = record.state.ended

    async def _show_failure(self, record: JobRecord) -> None:
        events = await self._site.events(self._job, max(0, record.events - _LAST_EVENTS))
        details = next((event.details for event in reversed(events) if event.kind == "failed"), {})
        view = self._failure = failure_view(record, details)
        if view is None:
            return
        self._reason.set_text(view.cause)
        self._failed_where.set_text(view.where)
        self._failed.set_visibility(True)
        self._failed_log.set_visibility(view.worker is not None)
        self._failed_log.set_text(f"Log of worker {view.worker}")
        if view.action is not None:
            self._pipeline.failed(view.action)

    async def _look_at_plan(self, record: JobRecord) -> None:
        """Show plan.json, which a run writes when it starts and in a new layout."""
        if record.events == self._planned_at:
            return
        content = await self._site.plan(record)
        if content is not None:
            self._planned_at = record.events
            with contextlib.suppress(ValueError):  # a damaged file
                self._pipeline.plan(await asyncio.to_thread(planned, content))

    async def _open_log(self) -> None:
        if self._failure is not None and self._failure.worker is not None:
            await self._tabs.open_log(self._failure.worker, self._failure.log_text)

    async def _draw(self, record: JobRecord, live: Live, slowly: bool) -> None:
        stats = live.stats
        await self._pipeline.show(live)
        if stats.timeline is not None:
            self._memory.show(stats.timeline)
        if not slowly:
            return
        self._survival.show(stats.survival)
        self._curves.show(live)
        if stats.accounts is not None and stats.accounts is not self._accounts:
            placement = await self._site.placement(record, stats)
            slow = why_slow_of(stats.accounts, placement)
            self._slow.set_text(f"Why it is slow: {slow.replace('`', '')}." if slow else "")
            self._slow.set_visibility(bool(slow))
            accounts = api_facts.accounts_model(stats, placement)
            if accounts is not None:
                self._accounts = stats.accounts
                self._times.show(accounts)

    def _present(self, record: JobRecord) -> None:
        """Show the state, its reason and the figures."""
        view = self._site.jobs.view(record)
        state = record.state
        self._state.set_text(state.name)
        self._state.classes(replace=f"state {state.name}")
        title = f"{tab_title(record)} · pipetrain"
        if title != self._title:
            self._title = title
            ui.page_title(title)
        self._reason.set_text(view.reason if self._failure is None else self._failure.cause)
        self._reason.set_visibility(bool(view.reason))
        self._failed.set_visibility(self._failure is not None)
        self._next.set_text(what_next(record))
        self._waiting.set_visibility(bool(what_next(record)))
        self._facts(figures(record, self._stats, view.position, view.queue_length))
        share_done = record.step / record.steps_total if record.steps_total else 0.0
        self._bar.set_visibility(bool(record.steps_total) and not state.ended)
        self._done.style(f"width: {100 * share_done:.1f}%")
        self._stop.set_visibility(not state.ended)
        self._delete.set_visibility(state.ended)
        self._resume.set_visibility(state.ended and bool(record.step))
        self._tracing.set_visibility(state.name == "RUNNING")
        self._model.set_visibility(record.model_saved)
        if not self._ticks:
            self._trace.set_visibility(False)


def figures(record: JobRecord, stats: JobStats | None, position: int | None, queue_length: int | None) -> Sequence[str]:
    """Return the texts of FACTS; empty if a figure is not known."""
    now = time.time()
    of = "" if record.steps_total is None else f" of {record.steps_total:,}, {percent(record)}%"
    rate, bubble = (None, None) if stats is None else (stats.recent.samples_per_second, stats.recent.bubble)
    last = None if stats is None else stats.last_step_at
    took = "" if record.started_at is None else span((record.ended_at or now) - record.started_at)
    return (
        f"{record.step:,}{of}" if record.attempt else "",
        number(record.loss) if record.loss is not None else "",
        number(record.validation_loss) if record.validation_loss is not None else "",
        share(record.validation_accuracy) if record.validation_accuracy is not None else "",
        number(record.validation_perplexity, ""),
        number(record.validation_bits_per_byte, ""),
        f"{rate:,.0f}" if rate is not None else "",
        "" if stats is None else step_time_of(stats),
        share(bubble) if bubble is not None else "",
        share(None if stats is None else stats.latest.get("bubble_predicted"), absent=""),
        clock(last)[11:] if last is not None else "",
        "" if record.state.ended else took,
        took if record.state.ended else "",
        time_left(record, stats).removesuffix(" left"),
        "" if position is None else f"{position} of {queue_length}",
    )


def step_time_of(stats: JobStats) -> str:
    """Return the mean and the median time of the last steps; empty before the first."""
    mean, median = stats.recent.durations.mean, stats.recent.durations.median
    return "" if mean is None or median is None else step_time(mean, median)


def what_next(record: JobRecord) -> str:
    """Describe what a job that waits or starts needs, and when its figures appear; empty once it trains or has
    ended."""
    if record.state.ended or begun(record):
        return ""
    needs = record.needs
    memory = f" and {size(needs.memory)} of memory" if needs.memory else ""
    wants = f"{counted(needs.workers, 'worker')} with {counted(needs.cpus, 'CPU')}{memory} each"
    begins = "It is being started" if record.state.name == "STARTING" else "It starts when these are free for it"
    return f"The job needs {wants}. {begins}; its pipeline, curves and times appear here after its first steps."
