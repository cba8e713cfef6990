"""Sends a watcher a job's state, events and rows, in order, each once, from any cursor on.

A cursor is `attempt.bytes.event`: the attempt whose rows come next, the number of bytes sent of its rows file, and the
number of the last event sent. Watchers with the same cursor get the same bytes, which are serialised once.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from cluster.service.entry import Entry, JobView
from cluster.service.jobs import Jobs
from cluster.service.messages import event_message, job_message
from cluster.service.old_counts import file_counts_from_zero, row_from_one
from cluster.service.run_feed import read_lines, row_of, rows_file
from cluster.wire import pipetrain_pb2 as pb
from cluster.wire.convert import row_to_wire
from stages.errors import UserMistake

_ROWS_BYTES = 64 * 1024
_EVENTS_AT_ONCE = 500
_AT_LEAST_EVERY_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """A place in a job's rows and events."""

    attempt: int = 1
    rows: int = 0
    event: int = 0

    @staticmethod
    def parse(text: str) -> Cursor:
        """Return the cursor of a text; the beginning for "". Raises UserMistake if it is not a cursor."""
        if not text:
            return Cursor()
        if not re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,18}\.[0-9]{1,18}", text):
            raise UserMistake(f"cursor: got {text[:80]!r}, must be one that Watch sent, or empty")
        attempt, rows, event = map(int, text.split("."))
        return Cursor(attempt=max(1, attempt), rows=rows, event=event)

    def __str__(self) -> str:
        return f"{self.attempt}.{self.rows}.{self.event}"


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows and events after a cursor, and the cursor after them. `more`: further ones can be read now."""

    rows: list[pb.MetricRow]
    events: list[pb.Event]
    cursor: Cursor
    more: bool

    @property
    def empty(self) -> bool:
        return not self.rows and not self.events


class Watcher:
    """One call of Watch."""

    def __init__(self, jobs: Jobs, job: str, request: pb.WatchRequest) -> None:
        self._jobs, self._with_rows, self._until_now = jobs, not request.without_rows, request.until_now
        self._entry = jobs.entries.get(job) or Entry(jobs.record(job))
        self._folder = jobs.home.run_directory(job)
        self._cursor = Cursor.parse(request.cursor)
        if request.from_now and not request.cursor:
            record = self._entry.record
            self._cursor = Cursor(attempt=max(1, record.attempt), rows=self._rows_end(), event=record.events)

    async def updates(self) -> AsyncIterator[bytes]:
        """Yield serialised WatchUpdates: the present state first, the final state last and alone."""
        entry = self._entry
        sent: tuple[str, str] | None = None
        entry.watchers += 1
        try:
            while True:
                changed = entry.changed
                view = self._jobs.view(entry.live_record())
                state = view.record.state
                key = (self._cursor, self._with_rows, state.name, view.reason, view.record.events, self._rows_end())
                if sent is None:
                    message, batch = self._update(view, first=True)
                else:
                    if entry.memo is None or entry.memo[0] != key:
                        entry.memo = (key, *self._update(view, first=False))
                    _, message, batch = entry.memo
                final = state.ended and batch.empty and not batch.more
                if sent != (now := (state.name, view.reason)) or not batch.empty or final:
                    yield message
                    sent, self._cursor = now, batch.cursor
                    if final:
                        return
                if batch.more or (state.ended and not batch.empty):
                    continue
                if self._until_now:
                    return
                try:
                    async with asyncio.timeout(_AT_LEAST_EVERY_S):
                        await changed.wait()
                except TimeoutError:
                    sent = ("", "")
        finally:
            entry.watchers -= 1

    def _update(self, view: JobView, *, first: bool) -> tuple[bytes, _Batch]:
        """Return the next update's bytes and content. The final state comes only after all rows and events are sent."""
        batch = self._read(view.record.attempt, view.record.events)
        update = pb.WatchUpdate(cursor=str(batch.cursor), events=batch.events, rows=batch.rows)
        if first or batch.empty or not view.record.state.ended:
            update.job.CopyFrom(job_message(view))
        return update.SerializeToString(), batch

    def _rows_end(self) -> int:
        feed = self._entry.feed
        return 0 if feed is None else feed.metrics_end

    def _read(self, present: int, n_events: int) -> _Batch:
        cursor = self._cursor
        events: list[pb.Event] = []
        if cursor.event < n_events:
            found = self._jobs.store.events(self._entry.record.id, cursor.event, _EVENTS_AT_ONCE)
            events = [event_message(event) for event in found]
            # none found: the job was deleted meanwhile, so no more will come
            cursor = replace(cursor, event=cursor.event + len(found) if found else n_events)
        if not self._with_rows:
            return _Batch([], events, cursor, cursor.event < n_events)
        rows: list[pb.MetricRow] = []
        while cursor.attempt <= present and not rows:
            file = rows_file(self._folder, cursor.attempt, present)
            from_zero = file_counts_from_zero(file)  # before its rows: the file may be moved meanwhile
            part = read_lines(file, cursor.rows, self._readable(cursor))
            read = (_wire(line, cursor.attempt, from_zero) for line in part.splitlines())
            rows = [row for row in read if row is not None]
            cursor = replace(cursor, rows=cursor.rows + len(part))
            if not part:
                if cursor.attempt == present:
                    break
                cursor = Cursor(attempt=cursor.attempt + 1, rows=0, event=cursor.event)
        return _Batch(rows, events, cursor, cursor.event < n_events or self._has_more(cursor, present))

    def _readable(self, cursor: Cursor) -> int:
        """Return the number of bytes to read: only rows that the feed knows, so that all watchers get the same."""
        feed = self._entry.feed
        known = feed is not None and feed.attempt == cursor.attempt and not self._entry.record.state.ended
        return min(_ROWS_BYTES, max(0, feed.metrics_end - cursor.rows)) if known and feed is not None else _ROWS_BYTES

    def _has_more(self, cursor: Cursor, present: int) -> bool:
        if cursor.attempt < present:
            return True
        return self._readable(cursor) > 0 and bool(
            read_lines(rows_file(self._folder, cursor.attempt, present), cursor.rows, 1)
        )


def _wire(line: bytes, attempt: int, from_zero: bool) -> pb.MetricRow | None:
    """Return a line of rows as a message; None if it is not a valid row."""
    row = row_of(line)
    try:
        return None if row is None else row_to_wire(row_from_one(row) if from_zero else row, attempt)
    except (KeyError, TypeError, ValueError):
        return None
