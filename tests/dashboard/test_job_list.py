"""Pages of ten thousand jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.dashboard.job_list import Filters, Page, job_page, nearest_page
from cluster.service import store
from cluster.service.records import EventRecord, JobDocument, JobRecord
from cluster.service.store import Store
from coordinator.queue.job_states import Failed, Queued, State, Succeeded
from stages.errors import UserMistake
from tests.records import job_record

N = 10_000


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """What the list needs of Jobs: a store with every third job failed, every fiftieth one queued."""
    opened = Store(tmp_path_factory.mktemp("store") / "jobs.sqlite3")

    async def fill() -> None:
        await asyncio.gather(*(opened.write(store.insert(_record(i), _DOCUMENT, _EVENT)) for i in range(N)))

    asyncio.run(fill())
    yield SimpleNamespace(store=opened, entries={})
    opened.close()


_DOCUMENT = JobDocument(document="{}", files={})
_EVENT = EventRecord(seq=1, time=0.0, kind="submitted", attempt=0, text="", details={})


def _record(i: int) -> JobRecord:
    state: State = Succeeded(attempt=1)
    if i % 50 == 0:
        state = Queued()
    elif i % 3 == 0:
        state = Failed(attempt=1, cause="it broke", kind="x")
    return job_record(f"job{i:05d}", name=f"Name-{i % 100}", state=state, submitted_at=float(i))


def page(jobs: Any, **filters: Any) -> Page:
    return asyncio.run(job_page(jobs, Filters(**filters)))


def ids(found: Page) -> list[str]:
    return [record.id for record in found.records]


def test_pages_follow_each_other_from_the_newest_on(jobs: Any) -> None:
    first, last = page(jobs), page(jobs, page=399)
    assert ids(first) == [f"job{N - 1 - i:05d}" for i in range(25)]
    assert ids(last) == [f"job{24 - i:05d}" for i in range(25)]
    assert first.total == last.total == N
    assert ids(page(jobs, page=400)) == []


def test_the_list_goes_back_to_its_last_page_where_there_are_no_longer_so_many(jobs: Any) -> None:
    def nearest(**filters: Any) -> tuple[list[str], int]:
        found, asked = asyncio.run(nearest_page(jobs, Filters(**filters)))
        return ids(found), asked.page

    assert nearest(page=400) == nearest(page=1000) == (ids(page(jobs, page=399)), 399)
    assert nearest(page=1, search="job00007") == (["job00007"], 0)
    assert nearest(page=3, search="nothing like it") == ([], 0)


def test_states_and_names_are_filtered(jobs: Any) -> None:
    waiting = page(jobs, states=("QUEUED",))
    assert waiting.total == 200
    assert all(record.state.name == "QUEUED" for record in waiting.records)
    named = page(jobs, search="name-42", limit=500)
    assert named.total == 100
    assert {record.name for record in named.records} == {"Name-42"}
    assert ids(page(jobs, search="job00007")) == ["job00007"]
    assert page(jobs, search="nothing like it").total == 0


def test_wrong_filters_are_explained(jobs: Any) -> None:
    for wrong in ({"states": ("DONE",)}, {"limit": 0}, {"limit": 501}, {"page": -1}, {"page": 2**63}):
        with pytest.raises(UserMistake, match="must be"):
            page(jobs, **wrong)
