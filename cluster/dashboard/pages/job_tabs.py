"""The tabs below a job's pictures: events, logs, job file, plan and files. A tab reads its data only while it is
open."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from typing import Any

from nicegui import ui

from cluster.dashboard.failure_view import line_with
from cluster.dashboard.log_tail import RUNNER, LogTail
from cluster.dashboard.parts import Rows, cell, fill_table, problems_list, set_cell, table, text
from cluster.dashboard.picture import PictureView
from cluster.dashboard.planned import UNIT, planned
from cluster.dashboard.site import Site
from cluster.dashboard.texts import clock
from cluster.service.peers import is_remote_address
from cluster.service.records import EventRecord, JobRecord
from coordinator.texts import share, size
from stages.errors import PipetrainError

MOST_EVENTS, MOST_LINES = 200, 300
_SCROLL_TO_MARK = """
    setTimeout(() => document.querySelector(".log mark:not(:empty)")?.scrollIntoView({block: "center"}), 100)
"""


class Tabs:
    """The tabs of one reader's page."""

    def __init__(self, site: Site, record: JobRecord) -> None:
        self._site, self._job = site, record.id
        with ui.element("section").classes("panel"):
            with ui.tabs().props('align=left dense no-caps aria-label="more of this job"') as self._tabs:
                for name in ("Events", "Logs", "Job file", "Plan", "Files"):
                    ui.tab(name)
            with ui.tab_panels(self._tabs, value="Events", animated=False):
                with ui.tab_panel("Events"):
                    self._events = _Events(site, record.id)
                with ui.tab_panel("Logs"):
                    self._logs = _Logs(site, record)
                with ui.tab_panel("Job file"):
                    self._spec = _Spec(site, record.id)
                with ui.tab_panel("Plan"):
                    self._plan = _Plan(site, record.id)
                with ui.tab_panel("Files"):
                    self._files = _Files(site, record.id)
        self._tabs.on_value_change(self._open)
        self._record = record

    async def look(self, record: JobRecord) -> None:
        """Show the present content of the open tab."""
        self._record = record
        if self._tabs.value == "Events":
            await self._events.look(record)
        elif self._tabs.value == "Logs":
            await self._logs.look(record.state.ended)
        elif self._tabs.value == "Files":
            await self._files.look(record.state.ended)

    async def open_log(self, worker: int, line: str) -> None:
        """Open a worker's log at its last line with this text."""
        self._tabs.set_value("Logs")
        await self._logs.open(worker, line)

    async def _open(self) -> None:
        if self._tabs.value == "Job file":
            await self._spec.look()
        await self.look(self._record)


class _Events:
    def __init__(self, site: Site, job: str) -> None:
        self._site, self._job, self._last = site, job, 0
        self._shown: deque[EventRecord] = deque(maxlen=MOST_EVENTS)
        self._body = table("time", "event", "text")
        self._rows = Rows(self._body, self._row)

    async def look(self, record: JobRecord) -> None:
        if record.events <= self._last:
            return
        for event in await self._site.events(self._job, self._last):
            self._last = max(self._last, event.seq)
            self._shown.append(event)
        self._events = {event.seq: event for event in self._shown}
        self._rows.show(sorted(self._events, reverse=True))

    def _row(self, seq: int) -> tuple[ui.element, None]:
        event = self._events[seq]
        attempt = f"attempt {event.attempt}: " if event.attempt > 1 else ""
        with ui.element("tr") as row:
            for column, content in enumerate((clock(event.time), event.kind, attempt + event.text)):
                set_cell(cell(self._body, column), content)
        return row, None


class _Logs:
    def __init__(self, site: Site, record: JobRecord) -> None:
        self._folder, self._ended = site.folder(record.id), record.state.ended
        names: dict[int, str] = {-2: "all processes", RUNNER: "runner"}
        names.update({worker: f"worker {worker}" for worker in range(min(record.needs.workers, 256))})
        with ui.element("div").classes("line").style("margin-bottom: 8px"):
            self._worker = (
                ui.select(names, label="Process", value=-2, on_change=self._choose)
                .props("outlined dense")
                .style("min-width: 150px")
            )
            self._follow = ui.checkbox("Follow", value=True)
            ui.label(f"the last {MOST_LINES} lines").classes("muted small")
        box = ui.element("div").classes("logbox").props('tabindex=0 role=log aria-label="log lines"')
        with box, ui.element("pre").classes("log"):
            self._text, self._mark, self._rest = (text(tag) for tag in ("span", "mark", "span"))
        self._marked = ""
        self._tail = LogTail(self._folder, None, MOST_LINES)
        self._looking = asyncio.Lock()

    async def _choose(self) -> None:
        worker = int(self._worker.value)
        self._tail = LogTail(self._folder, None if worker == -2 else worker, MOST_LINES)
        self._show([])
        await self.look(self._ended)

    async def open(self, worker: int, line: str) -> None:
        """Show a worker's log at the last line with this text."""
        self._marked = line
        self._follow.set_value(True)
        if self._worker.value != worker:
            self._worker.set_value(worker)
        await self._choose()
        ui.run_javascript(_SCROLL_TO_MARK)

    def _show(self, lines: Sequence[str]) -> None:
        at = line_with(lines, self._marked)
        before, line, after = (lines, "", []) if at is None else (lines[:at], lines[at], lines[at + 1 :])
        ends = "\n" if line else ""
        parts = "\n".join(before) + (ends if before else ""), line, (ends if after else "") + "\n".join(after)
        for place, part in zip((self._text, self._mark, self._rest), parts, strict=True):
            place.set_text(part)

    async def look(self, ended: bool) -> None:
        self._ended = ended
        async with self._looking:  # no thread may add lines while they are joined here
            tail = self._tail
            if self._follow.value and await asyncio.to_thread(tail.look, ended) and tail is self._tail:
                self._show(list(tail.lines))
            elif not (self._text.text or self._mark.text):
                self._text.set_text("no output" if ended else "no output yet")


class _Spec:
    def __init__(self, site: Site, job: str) -> None:
        self._site, self._job = site, job
        ui.link("Change and submit it again", f"/submit?job={job}")
        self._text = text("pre", "").classes("log spec").props('tabindex=0 aria-label="job file"')

    async def look(self) -> None:
        if self._text.text:
            return
        try:
            self._text.set_text(await asyncio.to_thread((await self._site.spec(self._job)).to_yaml))
        except PipetrainError as error:
            self._text.set_text(str(error))


class _Plan:
    def __init__(self, site: Site, job: str) -> None:
        self._site, self._job = site, job
        with ui.element("div").classes("line"):
            self._button = (
                ui.button("Make the plan", color=None, on_click=self._make).classes("act").props("unelevated")
            )
            ui.label("This reads the job's data, which may take a while.").classes("muted small")
        self._problems = problems_list()
        self._place = ui.element("div")

    async def _make(self) -> None:
        self._button.disable()
        try:
            spec = await self._site.spec(self._job)
            document = await asyncio.to_thread(self._site.jobs.store.document, self._job)
            remote = self._site.jobs.record(self._job).remote or is_remote_address(self._button.client.ip)
            found, refusals = await self._site.api.plan(spec, document.files, remote=remote)
            self._problems(refusals)
            self._draw(json.loads(found))
        except PipetrainError as error:
            self._problems(str(error).splitlines())
        finally:
            self._button.enable()

    def _draw(self, plan: dict[str, Any]) -> None:
        self._place.clear()
        with self._place:
            for line in plan["data"]:
                ui.label(line)
            ui.label(
                f"predicted bubble {share(plan['bubble'])}, bottleneck worker {plan['bottleneck']}: from counted "
                "operations, not from measured times"
            ).classes("muted")
            found = planned(plan)
            if found.gain:
                ui.label(found.gain)
            if found.picture is not None:
                PictureView(unit=UNIT, label="The actions of each worker in the plan").show(found.picture)
            stages = table("stage", "worker", "layers", "parameters", "FLOPs/step", "weights", "saved at peak")
            workers = table("worker", "bytes for the job", "limit", "busy")
        fill_table(stages, [_stage_row(stage) for stage in plan["stages"]])
        fill_table(
            workers,
            [
                (
                    str(w["worker"]),
                    size(w["total"]),
                    "none" if w["limit"] is None else size(w["limit"]),
                    share(w["busy"]),
                )
                for w in plan["workers"]
            ],
        )


def _stage_row(stage: dict[str, Any]) -> tuple[str, ...]:
    layers = stage["layers"]
    return (
        str(stage["stage"]),
        str(stage["worker"]),
        f"{layers[0]} to {layers[-1]}" if len(layers) > 1 else str(layers[0]),
        f"{stage['parameters']:,}",
        f"{stage['flops']:.3g}",
        size(stage["memory"]["weights"]),
        size(stage["memory"]["saved"]),
    )


class _Files:
    def __init__(self, site: Site, job: str) -> None:
        self._site, self._job = site, job
        self._place = ui.element("ul").classes("files")
        self._rows = Rows(self._place, self._row)

    async def look(self, ended: bool) -> None:
        found = await self._site.files(self._job)
        nothing = "The job has no files." if ended else "The job has no run directory yet."
        sizes = [size(n_bytes) for _, n_bytes in found]
        for label, said in zip(self._rows.show([path for path, _ in found] or [""]), sizes or [nothing], strict=True):
            label.set_text(f" {said}")

    def _row(self, path: str) -> tuple[ui.element, ui.label]:
        with ui.element("li") as row:
            if path:
                ui.link(path, f"/api/jobs/{self._job}/files/{path}")
            return row, ui.label().classes("muted small").style("display: inline")
