"""The warnings of a job on its page: why its network may learn nothing."""

from __future__ import annotations

from collections.abc import Iterable

from nicegui import ui

from cluster.dashboard.parts import Rows
from cluster.dashboard.site import Site
from cluster.service.records import EventRecord, JobRecord


class Warnings:
    """A line for each kind of warning. Only new events are read."""

    def __init__(self, site: Site, record: JobRecord) -> None:
        self._site, self._job, self._last = site, record.id, 0
        self._texts: dict[str, str] = {}
        self._place = ui.element("div").classes("stack").props('role=log aria-label="warnings"')
        self._place.set_visibility(False)
        self._rows = Rows(self._place, self._row)

    async def look(self, record: JobRecord) -> None:
        """Show the warnings among the events so far."""
        if record.events <= self._last:
            return
        events = await self._site.events(self._job, self._last)
        self._last = max([self._last, *(event.seq for event in events)])
        self._texts |= warning_texts(events)
        self._place.set_visibility(bool(self._texts))
        for code, label in zip(self._texts, self._rows.show(list(self._texts)), strict=True):
            label.set_text(f"Warning: {self._texts[code]}.")

    def _row(self, code: str) -> tuple[ui.element, ui.label]:
        label = ui.label().classes("warning").props("role=note")
        return label, label


def warning_texts(events: Iterable[EventRecord]) -> dict[str, str]:
    """Return the text of each kind of warning by its code, without code marks: a later attempt gives the same again."""
    return {str(event.details.get("code")): event.text.replace("`", "") for event in events if event.kind == "warning"}
