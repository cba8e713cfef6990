"""Finding a job by what a user types: its id, the beginning of its id, or its name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from cluster.service.job_ids import find_id
from cluster.service.records import JobDocument
from cluster.service.store import Store, insert
from stages.errors import UnknownJob
from tests.records import job_record
from tests.service_units.test_store import _event

JOBS = [
    ("abcd2222", "digits"),
    ("abcd3333", "houses"),
    ("efgh4444", "twice"),
    ("jkmn5555", "twice"),
    ("qrst6666", "ef"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = Store(tmp_path_factory.mktemp("ids") / "jobs.sqlite3")

    async def fill() -> None:
        for job, name in JOBS:
            record = job_record(job, name=name, submission_id=job)
            await opened.write(insert(record, JobDocument(document="", files={}), _event()))

    asyncio.run(fill())
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("text", "job"),
    [
        ("abcd2222", "abcd2222"),
        ("abcd2", "abcd2222"),
        ("j", "jkmn5555"),
        ("digits", "abcd2222"),
        ("houses", "abcd3333"),
    ],
)
def test_an_id_its_beginning_and_a_name_find_the_job(store: Store, text: str, job: str) -> None:
    assert find_id(store, text) == job


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("abcd", "abcd begins several ids: abcd3333, abcd2222; give more of it"),
        ("twice", "several jobs are named twice: jkmn5555, efgh4444 (the newest first); give the id"),
        ("ef", "ef is the name of a job and the beginning of an id: efgh4444, qrst6666; give a whole id"),
        ("digitz", "no job has the id or the name 'digitz'; did you mean digits?"),
        ("abcd222x", "no job has the id or the name 'abcd222x'; did you mean abcd2222?"),
        ("attention", "no job has the id or the name 'attention'"),
        ("", "no job has the id or the name ''"),
    ],
)
def test_what_finds_no_job_or_several_says_what_to_type(store: Store, text: str, told: str) -> None:
    with pytest.raises(UnknownJob) as caught:
        find_id(store, text)
    assert str(caught.value) == told
