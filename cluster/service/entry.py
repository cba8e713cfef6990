"""The service's data in memory about a job that has not ended, and the view of any job that callers get."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from dataclasses import dataclass, field
from typing import Any

from cluster.service.job_stats import row_loss
from cluster.service.records import JobRecord
from cluster.service.run_feed import RunFeed
from coordinator.queue.job_states import Running, Starting


@dataclass(slots=True)
class Entry:
    """A job in memory. Its record changes only under `lock`, and is written to the store before it changes here."""

    record: JobRecord
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    feed: RunFeed | None = None
    silent_s: int = 0
    watchers: int = 0
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    hindrances: dict[str, str] = field(default_factory=dict)
    """Why the service cannot note, read or start the job now, by what it cannot do. The reason of the job's state
    shows it."""
    read_again_at: float = 0.0
    rows_untold: bool = False
    rows_told_at: float = 0.0
    memo: Any = None
    """The last update that was sent to a watcher, kept for the next watcher that needs the same one."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def attempt(self) -> int | None:
        """The attempt that has processes now; None if no attempt has."""
        state = self.record.state
        return state.attempt if isinstance(state, (Starting, Running)) else None

    @property
    def leaving(self) -> bool:
        """Whether its processes were asked to end."""
        state = self.record.state
        return isinstance(state, (Starting, Running)) and state.stop is not None

    @property
    def changed(self) -> asyncio.Event:
        """An event that is set at the next change. Get it, look at the job, then wait for the event."""
        return self._changed

    @property
    def rows_every_s(self) -> float:
        """Seconds between two wake-ups of watchers for new rows. More watchers are woken less often, so that a hundred
        of them do not take the CPUs from training."""
        return min(1.0, 0.1 + 0.01 * self.watchers)

    async def catch_up(self) -> None:
        """Read the rows that the run has written by now, if the job runs and its rows can be read."""
        if self.feed is not None:
            with contextlib.suppress(OSError):
                await self.feed.follow_rows()

    def hinder(self, what: str, why: str) -> bool:
        """Set why the service cannot do `what` ("" if it can again), and return whether that changed."""
        if self.hindrances.get(what, "") == why:
            return False
        self.hindrances.pop(what, None)
        if why:
            self.hindrances[what] = why
        self.wake_watchers()
        return True

    def wake_watchers(self) -> None:
        """Wake all watchers."""
        event, self._changed = self._changed, asyncio.Event()
        event.set()

    def live_record(self) -> JobRecord:
        """Return the record with the run's present step and figures."""
        feed, record = self.feed, self.record
        if feed is None or record.state.ended:
            return record
        changes: dict[str, Any] = {}
        if feed.last_step is not None:
            changes.update(step=feed.last_step["step"], loss=feed.means.loss)
            changes["samples_per_second"] = feed.samples_per_second
        if feed.last_eval is not None:
            changes["validation_loss"] = row_loss(feed.last_eval)
            changes["validation_accuracy"] = feed.last_eval.get("accuracy")
            changes["validation_perplexity"] = feed.last_eval.get("perplexity")
            changes["validation_bits_per_byte"] = feed.last_eval.get("bits_per_byte")
            changes["best_validation_loss"] = feed.best_validation_loss
        return dataclasses.replace(record, **changes) if changes else record


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as a caller sees it. `position` and `queue_length` are None unless the job is queued."""

    record: JobRecord
    reason: str
    position: int | None = None
    queue_length: int | None = None
