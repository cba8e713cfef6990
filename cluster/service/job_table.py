"""The interface of `Jobs` that the modules use which change and follow jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from cluster.service.entry import Entry
from cluster.service.records import JobRecord
from cluster.service.stats_board import StatsBoard
from cluster.service.store import Store

T = TypeVar("T")


class JobTable(Protocol):
    """All jobs of the service that have not ended. `closing`: the service is ending and starts nothing new."""

    store: Store
    board: StatsBoard
    entries: dict[str, Entry]
    closing: bool

    def active_entries(self) -> list[Entry]:
        """Return the jobs that have processes."""

    def move(self, entry: Entry, after: JobRecord) -> None:
        """Set the job's record and put the job into the group of its new state."""

    def begin(self, change: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a change that is completed before the service ends."""

    async def unbroken(self, change: Coroutine[Any, Any, T]) -> T:
        """Make a change that is completed even if the caller cancels its call."""
