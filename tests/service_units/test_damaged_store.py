"""A store with damaged bytes: each read returns what was written, or raises one sentence with the store's path."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.cli.down import _unfinished
from cluster.service.entry import JobView
from cluster.service.home import Home
from cluster.service.messages import event_message, job_message
from cluster.service.records import EventRecord, JobDocument, JobRecord
from cluster.service.refusals import StoreDamaged, StoreTrouble
from cluster.service.store import Store, insert, probe, update
from coordinator.queue.job_queue import Needs
from coordinator.queue.job_states import Failed, Queued, Running, StopAsked
from stages.errors import UserMistake

JOBS = [f"job{n}" for n in range(20)]
PAGE = 4096


async def _filled(path: Path) -> None:
    with closing(Store(path)) as store:
        for n, job in enumerate(JOBS):
            record = JobRecord(
                id=job, name="digits", submission_id=job, priority=0, order=0, events=1, submitted_at=1.0,
                needs=Needs(workers=1, cpus=1, memory=0), state=Queued(),
            )  # fmt: skip
            first = EventRecord(seq=1, time=1.0, kind="submitted", attempt=0, text="text", details={"pid": 4})
            document = JobDocument(document='{"a": 1}', files={"x.csv": "0" * 64})
            record, _ = await store.write(insert(record, document, first))
            failed, running = Failed(attempt=1, cause="c", kind="k"), Running(attempt=1, stop=StopAsked(at=1.0))
            state = failed if n % 2 else running
            await store.write(update(replace(record, state=state), [replace(first, seq=2, text="more")]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store with twenty jobs."""
    path = tmp_path_factory.mktemp("whole") / "jobs.sqlite3"
    asyncio.run(_filled(path))
    return path


LOOKS: dict[str, Callable[[Store], object]] = {
    "all jobs, as callers are shown them": lambda store: [
        job_message(JobView(record=record, reason=record.reason), whole=True) for record in store.select()
    ],
    "those that have not ended": lambda store: store.unfinished(),
    "one": lambda store: store.get(JOBS[3]),
    "one by its submission": lambda store: store.by_submission(JOBS[4]),
    "its document": lambda store: [store.document(job) for job in JOBS if store.get(job)],
    "its events": lambda store: [event_message(event) for job in JOBS for event in store.events(job)],
    "counts": lambda store: store.counts(),
    "names": lambda store: (store.names(9), store.ids("j", 9), store.select_ids(["FAILED"])),
    "uploads": lambda store: store.uploads_in_use(),
    "a write": lambda store: asyncio.run(_write(store)),
}


async def _write(store: Store) -> None:
    await store.write(probe())


def _look(path: Path) -> list[str]:
    """Return what is wrong with the report of its damage."""
    wrong = []
    try:
        store = Store(path)
    except UserMistake as error:
        return [] if str(path) in str(error) and str(error).isprintable() else [f"opening: {error}"]
    with closing(store):
        for what, look in LOOKS.items():
            try:
                look(store)
            except KeyError as error:
                wrong += [] if error.args[0] in JOBS else [f"{what}: {error!r}"]
            except StoreTrouble as error:
                wrong += [] if str(path) in str(error) else [f"{what}: {error}"]
            except Exception as error:
                wrong.append(f"{what}: {error!r}")
    return wrong


def _damaged(content: bytes, chance: random.Random) -> bytes:
    """Make a copy with some changed bytes, a part of noise, a missing end, or a page of zeros."""
    damaged = bytearray(content)
    place = chance.randrange(len(content))
    match chance.randrange(4):
        case 0:
            for _ in range(chance.choice([1, 3, 30])):
                damaged[chance.randrange(len(content))] = chance.randrange(256)
        case 1:
            noise = chance.randbytes(min(chance.choice([16, 512, PAGE]), len(content) - place))
            damaged[place : place + len(noise)] = noise
        case 2:
            del damaged[place:]
        case _:
            damaged[place // PAGE * PAGE : (place // PAGE + 1) * PAGE] = bytes(PAGE)
    return bytes(damaged)


def test_damage_is_told_in_one_sentence_with_the_path(whole: Path, tmp_path: Path) -> None:
    content, chance, wrong = whole.read_bytes(), random.Random(1), list[str]()
    for _ in range(150):
        folder = tmp_path / "home"
        folder.mkdir()
        (folder / "jobs.sqlite3").write_bytes(_damaged(content, chance))
        wrong += _look(folder / "jobs.sqlite3")
        _unfinished(Home(folder))
        shutil.rmtree(folder)
    assert wrong == []


CHANGES = {
    "a column has another name": "ALTER TABLE jobs RENAME COLUMN ended_at TO endee_at",
    "a table is gone": "DROP TABLE events",
    "a text is no UTF-8": "UPDATE jobs SET name = CAST(x'64ff' AS TEXT)",
    "details are no JSON": "UPDATE events SET details = '{'",
    "details are a list": "UPDATE events SET details = '[]'",
    "files are no JSON": "UPDATE documents SET files = '\x01'",
    "a state that there is not": "UPDATE jobs SET state = 'RUNNINH'",
    "the evidence of another state": "UPDATE jobs SET evidence = '{\"x\": 1}'",
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_damage_that_sqlite_does_not_see_is_told_as_such(whole: Path, tmp_path: Path, what: str) -> None:
    path = tmp_path / "jobs.sqlite3"
    shutil.copy(whole, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(CHANGES[what])
    told: list[Exception] = []
    with closing(Store(path)) as store:
        for look in LOOKS.values():
            try:
                look(store)
            except Exception as error:
                told.append(error)
    assert told
    assert {type(error) for error in told} == {StoreDamaged}
    assert all(str(error).startswith(f"{path}: the job store is damaged") for error in told)


def test_a_store_without_a_byte_beside_what_jobs_left_is_damaged_and_not_new(tmp_path: Path) -> None:
    """A power failure may leave it so. It was once taken for a new store, and all jobs were gone without an error."""
    home = Home(tmp_path / "home")
    home.make()
    home.store.touch()
    Store(home.store).close()  # a service was killed while it made the store
    for file in home.folder.glob("jobs.sqlite3*"):
        file.unlink()
    home.store.touch()
    home.run_directory("k7x2abcd").mkdir()
    with pytest.raises(StoreDamaged, match=r"jobs.sqlite3: the job store is damaged \(it is empty"):
        Store(home.store)
    assert home.store.stat().st_size == 0
