"""Pages of a list of ten thousand jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.dashboard.job_list import SORTS, Filters, Page, job_page, nearest_page
from cluster.service import store
from cluster.service.records import EventRecord, JobDocument, JobRecord
from cluster.service.store import Store
from coordinator.queue.job_states import Failed, Queued, State, Succeeded
from stages.errors import UserMistake
from tests.records import job_record

N = 10_000


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A stand-in for Jobs: a store in which every third job is failed and every fiftieth one queued."""
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
    loss = float(i % 7) if i % 30 == 3 else None
    return job_record(f"job{i:05d}", name=f"Name-{i % 100}", state=state, submitted_at=float(i), loss=loss)


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


def test_the_list_is_sorted_by_any_column_with_what_has_no_value_last(jobs: Any) -> None:
    first = page(jobs, sort="name", limit=300)
    assert {record.name for record in first.records} == {"Name-0", "Name-1", "Name-10"}
    assert ids(page(jobs, sort="submitted_at", limit=2)) == ["job00000", "job00001"]
    assert ids(page(jobs, sort="submitted_at", descending=True, page=1, limit=2)) == ["job09997", "job09996"]
    losses = page(jobs, sort="loss", states=("FAILED",), limit=500).records
    found = [record.loss for record in losses]
    valued = [loss for loss in found if loss is not None]
    assert valued == sorted(valued)
    assert found == [*valued, *[None] * (len(found) - len(valued))]
    assert 0 < len(valued) < len(found)
    for name in SORTS:
        assert page(jobs, sort=name, descending=True).total == N


def test_wrong_filters_are_explained(jobs: Any) -> None:
    for wrong in (
        {"sort": "colour"},
        {"states": ("DONE",)},
        {"limit": 0},
        {"limit": 501},
        {"page": -1},
        {"page": 2**63},
    ):
        with pytest.raises(UserMistake, match="must be"):
            page(jobs, **wrong)
