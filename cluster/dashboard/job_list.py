"""One page of the list of jobs: newest first or sorted by a column, filtered by state, name and id."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cluster.service.jobs import Jobs
from cluster.service.records import JobRecord
from cluster.service.store import Store
from coordinator.queue.job_states import STATE_NAMES
from stages.errors import UserMistake

MOST_A_PAGE = 500
_MOST_PAGES = 2**31
"""SQLite counts rows in 64 bits."""


SORTS: dict[str, Callable[[JobRecord], Any]] = {
    "name": lambda record: record.name.lower(),
    "state": lambda record: STATE_NAMES.index(record.state.name),
    "step": lambda record: record.step,
    "loss": lambda record: record.loss,
    "best_validation_loss": lambda record: record.best_validation_loss,
    "validation_accuracy": lambda record: record.validation_accuracy,
    "stages": lambda record: record.stages,
    "schedule": lambda record: record.schedule,
    "batch_size": lambda record: record.batch_size,
    "samples_per_second": lambda record: record.samples_per_second,
    "submitted_at": lambda record: record.submitted_at,
}
"""The values by which jobs can be sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """The choice of jobs and their order. `states`: empty for all. `search`: part of a name, in upper or lower case, or
    the beginning of an id. `sort`: a name of SORTS, or empty for the newest first; jobs without a value come last.
    Pages count from 0."""

    states: tuple[str, ...] = ()
    search: str = ""
    sort: str = ""
    descending: bool = False
    limit: int = 25
    page: int = 0

    def check(self) -> None:
        """Raise UserMistake if a value is wrong."""
        wrong = [state for state in self.states if state not in STATE_NAMES]
        if wrong:
            raise UserMistake(f"state: got {wrong[0][:50]}, must be one of {', '.join(STATE_NAMES)}")
        if self.sort and self.sort not in SORTS:
            raise UserMistake(f"sort: got {self.sort[:50]}, must be one of {', '.join(SORTS)}")
        if not 1 <= self.limit <= MOST_A_PAGE:
            raise UserMistake(f"limit: got {self.limit}, must be 1 to {MOST_A_PAGE}")
        if not 0 <= self.page < _MOST_PAGES:
            raise UserMistake(f"page: got {self.page}, must be from 0 to {_MOST_PAGES - 1:,}")


@dataclass(frozen=True, slots=True)
class Page:
    """A page of jobs. `total` jobs match the filters on all pages; `counts` has the number of all jobs by state."""

    records: Sequence[JobRecord]
    total: int
    counts: dict[str, int]


async def job_page(jobs: Jobs, filters: Filters) -> Page:
    """Return the page, with each job's present record. Raises UserMistake."""
    filters.check()
    if filters.sort:
        everything = await asyncio.to_thread(_select, jobs.store, replace(filters, page=0, limit=2**62))
        now = [present(jobs, record) for record in everything.records]
        start = filters.page * filters.limit
        chosen = in_order(now, filters.sort, descending=filters.descending)[start : start + filters.limit]
        return Page(chosen, everything.total, everything.counts)
    found = await asyncio.to_thread(_select, jobs.store, filters)
    return Page([present(jobs, record) for record in found.records], found.total, found.counts)


def in_order(records: Sequence[JobRecord], sort: str, *, descending: bool) -> list[JobRecord]:
    """Return the jobs sorted by that column, those without a value last. Equal jobs keep their order."""
    key = SORTS[sort]
    valued = [record for record in records if key(record) not in (None, "")]
    without = [record for record in records if key(record) in (None, "")]
    return sorted(valued, key=key, reverse=descending) + without


async def nearest_page(jobs: Jobs, filters: Filters) -> tuple[Page, Filters]:
    """Return the page, or the last one if there are fewer pages now, and the filters of the page returned."""
    found = await job_page(jobs, filters)
    while not found.records and filters.page > 0:
        last = max(0, (found.total - 1) // filters.limit)
        filters = replace(filters, page=min(last, filters.page - 1))
        found = await job_page(jobs, filters)
    return found, filters


def present(jobs: Jobs, record: JobRecord) -> JobRecord:
    """Return the job's present record."""
    entry = jobs.entries.get(record.id)
    return record if entry is None else entry.live_record()


def _select(store: Store, filters: Filters) -> Page:
    counts = store.counts()
    start, end = filters.page * filters.limit, (filters.page + 1) * filters.limit
    if not filters.search:
        total = sum(n for state, n in counts.items() if not filters.states or state in filters.states)
        return Page(list(store.select(filters.states, limit=end))[start:], total, counts)
    wanted = filters.search.lower()
    fitting = [r for r in store.select(filters.states) if wanted in r.name.lower() or r.id.startswith(wanted)]
    return Page(fitting[start:end], len(fitting), counts)
