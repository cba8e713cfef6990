"""Reads what runners write: stores their events, and keeps their rows in memory."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from cluster.service import run_events, store
from cluster.service.entry import Entry
from cluster.service.faults import strike
from cluster.service.job_table import JobTable
from cluster.service.noting import AGAIN_S, Noting
from cluster.service.refusals import StoreTrouble
from coordinator.queue.job_states import TRANSITIONS

_FOLLOW_EVERY_S = 0.1
_log = logging.getLogger(__name__)


class Following:
    """Follows the run directories of active jobs. `round_at` is when it last finished looking at all of them
    (`time.monotonic()`)."""

    def __init__(self, jobs: JobTable, noting: Noting) -> None:
        self._jobs, self._noting = jobs, noting
        self._probe_at = 0.0
        self.round_at = time.monotonic()

    async def keep(self) -> None:
        """Follow all active jobs for as long as the service runs."""
        while True:
            for entry in self._jobs.active_entries():
                if time.monotonic() >= entry.read_again_at:
                    await self._look_at(entry)
            if self._noting.trouble and time.monotonic() >= self._probe_at:
                await self._probe()
            self._jobs.board.sweep()
            self.round_at = time.monotonic()
            await asyncio.sleep(_FOLLOW_EVERY_S)

    async def _look_at(self, entry: Entry) -> None:
        """Read one job. If that fails, show the error with this job only, and try again after a pause."""
        why = ""
        try:
            await self.read(entry)
        except StoreTrouble:  # shown with every job
            entry.read_again_at = time.monotonic() + AGAIN_S
        except Exception as error:
            entry.read_again_at = time.monotonic() + AGAIN_S
            why = f"its run directory cannot be read: {error}"
            if entry.hinder("read", why):
                _log.exception("job %s could not be followed", entry.record.id)
        entry.hinder("read", why)

    async def _probe(self) -> None:
        """Test whether the store can be written again, even if there is nothing to write."""
        try:
            await self._noting.write(store.probe())
        except StoreTrouble:
            self._probe_at = time.monotonic() + AGAIN_S

    async def read(self, entry: Entry) -> None:
        """Read everything that a job's runner has written by now. After StoreTrouble or OSError, the next call reads
        the same events again."""
        await self._jobs.unbroken(self._read(entry))

    async def _read(self, entry: Entry) -> None:
        async with entry.reading:
            feed = entry.feed
            if feed is None:
                return
            try:
                for event in feed.new_events():
                    await self.take_event(entry, feed.attempt, event.content, event.end)
            except Exception:
                feed.go_back(entry.record.events_read)
                raise
            entry.rows_untold |= await feed.follow_rows()
            if entry.rows_untold and time.monotonic() - entry.rows_told_at >= entry.rows_every_s:
                entry.rows_untold, entry.rows_told_at = False, time.monotonic()
                strike("following")
                entry.wake_watchers()

    async def take_event(
        self, entry: Entry, attempt: int, content: Mapping[str, Any], events_read: int | None = None
    ) -> None:
        """Store a runner's event. An event that is not in the form that runners write fails the job."""
        kind = str(content.get("event"))
        try:
            what, text = run_events.happening(content), run_events.text(content)
            details, at = run_events.details(content), run_events.seconds(content, time.time())
        except Exception as error:
            await self._noting.give_up(entry, attempt, kind, "", error)
            return
        if what is not None and (type(entry.record.state), type(what)) not in TRANSITIONS:
            what = None
        await self._noting.apply(entry, what, kind, text, details, attempt=attempt, at=at, events_read=events_read)
