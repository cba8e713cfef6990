"""/: all jobs, newest first, a page at a time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

from nicegui import ui

from cluster.dashboard.buttons import confirm_delete, stop_job
from cluster.dashboard.frame import MADE_WITHIN_S, every_tick, frame, heading
from cluster.dashboard.job_list import Filters, Page, nearest_page, present
from cluster.dashboard.pages.job_rows import JobRow, row_view
from cluster.dashboard.parts import Rows, text
from cluster.dashboard.site import Site
from coordinator.queue.job_states import ACTIVE, STATE_NAMES

_PER_PAGE = 25
_GROUPS: dict[str, tuple[str, ...]] = {
    "All": (),
    "Active": (*ACTIVE, "RECOVERING"),
    "Waiting": ("QUEUED",),
    "Succeeded": ("SUCCEEDED",),
    "Failed": ("FAILED",),
    "Stopped": ("STOPPED",),
}
_COLUMNS = {
    "name": "Job",
    "state": "State and reason",
    "step": "Steps",
    "loss": "Mean loss",
    "best_validation_loss": "Best validation loss",
    "validation_accuracy": "Validation accuracy",
    "stages": "Stages",
    "schedule": "Schedule",
    "batch_size": "Batch",
    "samples_per_second": "Samples/s",
    "submitted_at": "When",
}
"""The headings, by the value by which they sort."""
_NEWEST = "newest"
_ORDERS = {_NEWEST: "Newest first", **_COLUMNS}
_SORT_AGAIN_S = 3.0  # a sorted list is sorted again after this time, because the values change


def register(site: Site) -> None:
    """Register the page."""

    @ui.page("/", response_timeout=MADE_WITHIN_S)
    async def jobs_page() -> None:
        with frame("Jobs", "/", str(site.home.folder)):
            page = _Jobs(site)
            await page.look()
            every_tick(page.look)


class _Jobs:
    """The page of one reader."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._group, self._search, self._page = "All", "", 0
        self._sort, self._descending = "", False
        self._shown: Page | None = None
        self._key: Any = None
        self._asked_at = 0.0
        with ui.element("div").classes("line apart"):
            heading("Jobs", 1)
            ui.button("Submit a job", color=None).classes("act main").props("unelevated href=/submit")
        with ui.element("div").classes("line apart"):
            with ui.element("div").classes("line").props('role=group aria-label="which jobs"'):
                self._groups = {name: self._group_button(name) for name in _GROUPS}
            self._order = (
                ui.select(_ORDERS, label="Sort by", value=_NEWEST, on_change=self._ordered)
                .props("outlined dense")
                .classes("sort")
            )
            self._field = (
                ui.input("Part of a name, or an id", on_change=self._filter)
                .props("outlined dense clearable debounce=250")
                .style("min-width: 230px")
            )
        with ui.element("section").classes("panel"):
            with ui.element("div").classes("jobs") as self._table, ui.element("table"):
                with ui.element("thead"), ui.element("tr"):
                    self._headings = {name: self._heading(name, column) for name, column in _COLUMNS.items()}
                    text("th").props("scope=col")
                self._rows = Rows(ui.element("tbody"), self._make)
            self._empty = ui.label().classes("muted")
        with ui.element("nav").classes("line").props('aria-label="pages of the list"') as self._pager:
            self._newer = ui.button("Newer", color=None, on_click=lambda: self._turn(-1)).classes("act").props("flat")
            self._place = ui.label().classes("muted number")
            self._older = ui.button("Older", color=None, on_click=lambda: self._turn(1)).classes("act").props("flat")

    def _group_button(self, name: str) -> ui.label:
        button = text("button", name).classes("act").props(f"type=button aria-pressed={str(name == 'All').lower()}")

        async def choose() -> None:
            for other, its in self._groups.items():
                its.props(f"aria-pressed={str(other == name).lower()}")
            self._group = name
            await self._filter()

        button.on("click", choose)
        return button

    def _heading(self, name: str, column: str) -> ui.element:
        with ui.element("th").props("scope=col aria-sort=none") as place:
            button = text("button", column).classes("sorter").props("type=button")
        button.on("click", lambda: self._sort_by(name))
        return place

    async def _sort_by(self, name: str) -> None:
        """Sort by that column: the first click upwards, the second downwards, the third newest first."""
        if self._sort != name:
            self._sort, self._descending = name, False
        elif not self._descending:
            self._descending = True
        else:
            self._sort, self._descending = "", False
        self._order.set_value(self._sort or _NEWEST)
        await self._sorted()

    async def _ordered(self) -> None:
        chosen = "" if self._order.value == _NEWEST else str(self._order.value)
        if chosen != self._sort:
            self._sort, self._descending = chosen, False
            await self._sorted()

    async def _sorted(self) -> None:
        for name, place in self._headings.items():
            way = "descending" if self._descending else "ascending"
            place.props(f"aria-sort={way if name == self._sort else 'none'}")
        self._page = 0
        self._forget()
        await self.look()

    async def _filter(self) -> None:
        self._search, self._page = (self._field.value or "").strip(), 0
        self._forget()
        await self.look()

    async def _turn(self, by: int) -> None:
        self._page = max(0, self._page + by)
        self._forget()
        await self.look()

    def _forget(self) -> None:
        self._key = None

    async def look(self) -> None:
        """Show the present jobs."""
        page = await self._present()
        sparks = await self._site.archive.sparks(page.records)
        now, view = time.time(), self._site.jobs.view
        for row, record in zip(self._rows.show([record.id for record in page.records]), page.records, strict=True):
            stats = self._site.archive.at_hand(record)
            row.show(row_view(record, view(record), stats, sparks.get(record.id, []), now))
        self._show_counts(page)

    async def _present(self) -> Page:
        """Return the page of the list. It is read again if jobs were added, deleted or changed their state; the records
        on it are always the present ones."""
        jobs = self._site.jobs
        filters = Filters(
            states=_GROUPS[self._group],
            search=self._search,
            sort=self._sort,
            descending=self._descending,
            limit=_PER_PAGE,
            page=self._page,
        )
        stored = await asyncio.to_thread(lambda: (jobs.store.counts(), jobs.store.ids("", 1)))
        key = (filters, (*stored, time.monotonic() // _SORT_AGAIN_S if self._sort else 0))
        if self._shown is None or key != self._key:
            self._shown, shown = await nearest_page(jobs, filters)
            self._page, self._key = shown.page, (shown, key[1])
        else:
            self._shown = replace(self._shown, records=[present(jobs, r) for r in self._shown.records])
        return self._shown

    def _make(self, job: str) -> tuple[ui.element, JobRow]:
        async def stop(job: str) -> None:
            await stop_job(self._site, job)

        async def delete(job: str) -> None:
            await confirm_delete(self._site, job, self._forget)

        row = JobRow(job, stop=stop, delete=delete)
        return row.element, row

    def _show_counts(self, page: Page) -> None:
        for name, states in _GROUPS.items():
            n = sum(page.counts.get(state, 0) for state in states or STATE_NAMES)
            self._groups[name].set_text(f"{name} {n:,}" if n else name)
        first, last = self._page * _PER_PAGE + 1, self._page * _PER_PAGE + len(page.records)
        self._place.set_text(f"{first:,} to {last:,} of {page.total:,}")
        self._pager.set_visibility(page.total > _PER_PAGE)
        self._newer.set_enabled(self._page > 0)
        self._older.set_enabled(last < page.total)
        self._table.set_visibility(bool(page.records))
        filtered = bool(self._search) or self._group != "All"
        self._empty.set_text(
            "No job matches." if filtered else "No jobs yet. Submit one here, or with `pipetrain submit`."
        )
        self._empty.set_visibility(not page.records)
