"""What those who change and follow jobs ask of the table of all jobs: the port between them and `Jobs`."""

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
    """All jobs of the service that have not ended. `closing`: the service ends, so nothing is begun any more."""

    store: Store
    board: StatsBoard
    entries: dict[str, Entry]
    closing: bool

    def active_entries(self) -> list[Entry]:
        """Jobs that have processes."""

    def move(self, entry: Entry, after: JobRecord) -> None:
        """Put the job where its new state belongs."""

    def begin(self, change: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin a change that is completed before the service ends."""

    async def unbroken(self, change: Coroutine[Any, Any, T]) -> T:
        """Make a change that a caller who hangs up does not undo."""
