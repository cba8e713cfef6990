"""Applies events to jobs: first in the store, then in memory, then by commands.

While the store cannot be written (a full disk), every job shows that, and the caller reports the event again later. An
event that can never be stored fails its job, and no other, instead of being tried for ever.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from cluster.service import store
from cluster.service.changes import begun, following, gave_up
from cluster.service.commands import Commands
from cluster.service.entry import Entry
from cluster.service.faults import strike
from cluster.service.job_table import JobTable
from cluster.service.records import EventRecord, JobRecord
from cluster.service.refusals import StoreTrouble, StoreUnwritable
from cluster.service.store_errors import trouble_of
from coordinator.queue.happenings import Happening, RunnerLost, StopRequested, Unstorable
from coordinator.queue.job_states import Command, Launch, Running, SendStop, Starting, decide

T = TypeVar("T")
AGAIN_S = 1.0
"""Pause in seconds before the service tries again to note, read or start something."""
_log = logging.getLogger(__name__)


class Noting:
    """Changes the jobs of `jobs`. `trouble` says why the store cannot be written now; "" if it can."""

    def __init__(self, jobs: JobTable, commands: Commands) -> None:
        self._jobs, self._store, self._commands = jobs, jobs.store, commands
        self.trouble = ""

    async def write(self, change: store.Write[T]) -> T:
        """As Store.write. If the store cannot be written, every job shows why, and this raises StoreTrouble."""
        try:
            result = await self._store.write(change)
        except Exception as error:
            trouble = trouble_of(error, self._store.path)
            if trouble is None:
                raise
            self._troubled(str(trouble))
            raise trouble from None
        self._troubled("")
        return result

    def _troubled(self, why: str) -> None:
        if why == self.trouble:
            return
        _log.warning("the store: %s", why or "can be written again")
        self.trouble = why
        for entry in self._jobs.entries.values():
            entry.hindrances.pop("note", None)
            entry.wake_watchers()

    async def apply(
        self,
        entry: Entry,
        happening: Happening | None,
        kind: str,
        text: str,
        details: Mapping[str, Any] | None = None,
        *,
        attempt: int | None = None,
        at: float | None = None,
        events_read: int | None = None,
    ) -> None:
        """Apply an event to a job: store, memory, commands, in this order. An event of an attempt that is no longer the
        present one is dropped.

        Raises StoreTrouble if the store cannot be written now. An event that can never be stored fails the job.
        """
        await entry.catch_up()
        commands: Sequence[Command] = ()
        try:
            async with entry.lock:
                before = entry.record
                if (attempt is not None and entry.attempt != attempt) or (attempt is None and before.state.ended):
                    return
                state, commands = (before.state, ()) if happening is None else decide(before.state, happening)
                if state != before.state or not isinstance(happening, StopRequested):
                    event = EventRecord(
                        seq=before.events + 1,
                        time=at or time.time(),
                        kind=kind,
                        attempt=state.attempt if isinstance(state, (Starting, Running)) else before.attempt,
                        text=text,
                        details=details or {},
                    )
                    after = following(entry, event)
                    after = replace(after, state=state, ended_at=event.time if state.ended else None)
                    if isinstance(state, Starting) and not isinstance(before.state, Starting):
                        after = begun(after, state.attempt, event.time)
                    if events_read is not None:
                        after = replace(after, events_read=events_read)
                    if state.ended:
                        strike("before the end is noted")
                    await self._note(entry, after, event)
        except StoreTrouble as trouble:
            if not isinstance(happening, StopRequested):  # its caller repeats it; the service repeats all others
                entry.hinder("note", f"{text or kind}; that cannot be noted yet: {trouble}")
            raise
        except Exception as error:
            await self.give_up(entry, attempt, kind, text, error)
            return
        for command in commands:
            await self.perform(entry, command)

    async def _note(self, entry: Entry, after: JobRecord, event: EventRecord) -> None:
        await self.write(store.update(after, [event]))
        self._jobs.move(entry, after)

    async def give_up(self, entry: Entry, attempt: int | None, kind: str, text: str, error: Exception) -> None:
        """Fail a job of which an event can never be stored. Raises StoreTrouble if the store cannot be written now."""
        _log.error("job %s: %r cannot be stored", entry.record.id, kind, exc_info=error)
        async with entry.lock:
            before = entry.record
            if before.state.ended or (attempt is not None and entry.attempt != attempt):
                return
            running = entry.attempt
            state, _ = decide(before.state, Unstorable(f"{kind}: {text}: {type(error).__name__}: {error}"))
            after, event = gave_up(before, state)
            try:
                await self._note(entry, after, event)
            except StoreTrouble:
                raise
            except Exception:
                _log.exception("the end of job %s cannot be stored either", entry.record.id)
                self._jobs.move(entry, after)
        if running is not None:
            self._commands.end_runner(before, running)

    async def perform(self, entry: Entry, command: Command) -> None:
        """Perform a command. If the disk has no room, try again later. If the command fails, only its job fails."""
        try:
            self._commands.perform(entry.record, command)
        except Exception as error:
            if isinstance(trouble := trouble_of(error, self._store.path), StoreUnwritable):
                entry.hinder("start", str(trouble))
                asyncio.get_running_loop().call_later(AGAIN_S, self._try_again, entry, command)
                return
            _log.exception("job %s: %s failed", entry.record.id, command)
            cause = f"its runner could not be started: {type(error).__name__}: {error}"
            await self.apply(entry, RunnerLost(cause), "runner lost", cause, attempt=command.attempt)
        entry.hinder("start", "")

    def _try_again(self, entry: Entry, command: Command) -> None:
        if entry.attempt == command.attempt and not self._jobs.closing:
            self._jobs.begin(self._perform_again(entry, command))

    async def _perform_again(self, entry: Entry, command: Command) -> None:
        await self.perform(entry, command)
        state = entry.record.state  # a stop requested meanwhile found no runner: send it now
        if isinstance(command, Launch) and isinstance(state, Starting) and state.stop is not None:
            await self.perform(entry, SendStop(state.attempt, state.stop.now, state.stop.grace))
