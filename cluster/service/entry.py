"""A job that has not ended, as the service follows it; and what a caller is shown of any job."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from dataclasses import dataclass, field
from typing import Any

from cluster.service.records import JobRecord
from cluster.service.run_feed import RunFeed
from coordinator.queue.job_states import Running, Starting


@dataclass(slots=True)
class Entry:
    """What is in memory of one job. Its record changes only under `lock`, and is in the store before it is here."""

    record: JobRecord
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    feed: RunFeed | None = None
    silent_s: int = 0
    watchers: int = 0
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    hindrances: dict[str, str] = field(default_factory=dict)
    """What keeps the service from noting, reading or starting it for now, told as the reason of its state."""
    read_again_at: float = 0.0
    rows_untold: bool = False
    rows_told_at: float = 0.0
    memo: Any = None
    """The last update that a watcher was sent, for the next one who is at the same place."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def attempt(self) -> int | None:
        """The attempt whose processes are there; None while there are none."""
        state = self.record.state
        return state.attempt if isinstance(state, (Starting, Running)) else None

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change. Take it before looking, then wait for it."""
        return self._changed

    @property
    def rows_every_s(self) -> float:
        """How often watchers are woken for new rows: a hundred of them must not take the CPUs from training."""
        return min(1.0, 0.1 + 0.01 * self.watchers)

    async def catch_up(self) -> None:
        """Take in what the run has written by now, if it runs, and if its rows can be read."""
        if self.feed is not None:
            with contextlib.suppress(OSError):
                await self.feed.follow_rows()

    def hinder(self, what: str, why: str) -> bool:
        """Tell what keeps the service from it; "" where nothing does any more. True where that is news."""
        if self.hindrances.get(what, "") == why:
            return False
        self.hindrances.pop(what, None)
        if why:
            self.hindrances[what] = why
        self.wake_watchers()
        return True

    def wake_watchers(self) -> None:
        """Wake whoever watches."""
        event, self._changed = self._changed, asyncio.Event()
        event.set()

    def live_record(self) -> JobRecord:
        """The record with the step and loss that the run has reached since it was written."""
        feed, record = self.feed, self.record
        if feed is None or record.state.ended:
            return record
        changes: dict[str, Any] = {}
        if feed.last_step is not None:
            changes.update(step=feed.last_step["step"], loss=feed.last_step["loss"])
        if feed.last_eval is not None:
            changes["validation_loss"] = feed.last_eval["loss"]
            changes["validation_accuracy"] = feed.last_eval.get("accuracy")
        return dataclasses.replace(record, **changes) if changes else record


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as a caller sees it. `position` and `queue_length` only while it is queued."""

    record: JobRecord
    reason: str
    position: int | None = None
    queue_length: int | None = None
