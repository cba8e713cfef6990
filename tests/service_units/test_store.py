"""The job store: everything that was written can be read again, after any concurrent writes and any crash."""

from __future__ import annotations

import asyncio
import math
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.service import store as module
from cluster.service.records import EventRecord, JobDocument, JobRecord
from cluster.service.store import Store, delete, insert, update
from coordinator.queue.job_queue import Needs
from coordinator.queue.job_states import STATE_NAMES
from stages.errors import UserMistake
from tests.coordinator.test_job_states import ANY_STATE
from tests.records import job_record

WORDS = st.text("ab'\"%_ äß\n\U0001f642", max_size=4)
IDS = st.text("ab", min_size=1, max_size=2)
COUNTS = st.integers(0, 2**63 - 1)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.none() | st.booleans() | st.integers() | NUMBERS | WORDS
DETAILS = st.dictionaries(WORDS, VALUES | st.lists(VALUES, max_size=2), max_size=2)
RECORDS = st.builds(
    JobRecord,
    id=IDS,
    name=st.sampled_from(["digits", "Ziffern", "数字"]),
    submission_id=WORDS,
    priority=st.integers(-(2**31), 2**31),
    order=st.just(0),
    needs=st.builds(Needs, workers=st.integers(1, 64), cpus=st.integers(1, 64), memory=COUNTS),
    state=ANY_STATE,
    attempt=st.integers(0, 20),
    step=COUNTS,
    steps_total=st.none() | COUNTS,
    loss=st.none() | NUMBERS,
    validation_loss=st.none() | NUMBERS,
    validation_accuracy=st.none() | NUMBERS,
    submitted_at=NUMBERS,
    started_at=st.none() | NUMBERS,
    ended_at=st.none() | NUMBERS,
    events=COUNTS,
    events_read=COUNTS,
    force=st.booleans(),
    runner_pid=st.none() | st.integers(1, 2**22),
)
DOCUMENTS = st.builds(JobDocument, document=WORDS, files=st.dictionaries(WORDS, WORDS, max_size=2))
EVENTS = st.builds(
    EventRecord, seq=st.just(1), time=NUMBERS, kind=WORDS, attempt=st.integers(0, 20), text=WORDS, details=DETAILS
)
DOCUMENT = JobDocument(document="{}", files={"a.csv": "0" * 64})
TROUBLE = "of a change"


def _event(seq: int = 1) -> EventRecord:
    return EventRecord(seq=seq, time=1.0, kind="kind", attempt=0, text="text", details={})


@contextmanager
def _opened(path: Path) -> Iterator[Store]:
    store = Store(path)
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with _opened(tmp_path / "jobs.sqlite3") as opened:
        yield opened


class Held:
    """A change that keeps the writer busy until `release`, so that changes meanwhile become one batch. Afterwards
    `commits` is the number of transactions, including this one."""

    def __init__(self) -> None:
        self._begun, self._release = threading.Event(), threading.Event()
        self._statements: list[str] = []

    def __call__(self, connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(self._statements.append)
        self._begun.set()
        assert self._release.wait(10), "the writer was not released"

    async def begin(self, store: Store) -> Awaitable[None]:
        task = asyncio.create_task(store.write(self))
        assert await asyncio.to_thread(self._begun.wait, 10), "the writer did not begin"
        return task

    def release(self) -> None:
        self._release.set()

    @property
    def commits(self) -> int:
        return self._statements.count("COMMIT")


# round trips -------------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """The content that a store must have."""

    jobs: dict[str, JobRecord] = field(default_factory=dict)
    documents: dict[str, JobDocument] = field(default_factory=dict)
    events: dict[str, list[EventRecord]] = field(default_factory=dict)
    last: int = 0

    async def insert(self, store: Store, record: JobRecord, document: JobDocument, first: EventRecord) -> None:
        same = [job for job in self.jobs.values() if job.submission_id == record.submission_id]
        if not same and record.id in self.jobs:
            with pytest.raises(sqlite3.IntegrityError):
                await store.write(insert(record, document, first))
            return
        taken, new = await store.write(insert(record, document, first))
        if same:
            assert (taken, new) == (same[0], False)
            return
        assert new
        assert taken.order > self.last
        self.last = taken.order
        assert taken == replace(record, order=taken.order)
        self.jobs[record.id], self.documents[record.id], self.events[record.id] = taken, document, [first]

    async def update(self, store: Store, record: JobRecord, events: list[EventRecord]) -> None:
        if (known := self.jobs.get(record.id)) is None:
            return
        n = len(self.events[record.id])
        events = [replace(event, seq=n + k) for k, event in enumerate(events, 1)]
        after = replace(record, order=known.order, submission_id=known.submission_id)
        await store.write(update(after, events))
        self.jobs[record.id] = after
        self.events[record.id] += events

    async def delete(self, store: Store, record: JobRecord) -> None:
        await store.write(delete(record.id))
        for table in (self.jobs, self.documents, self.events):
            table.pop(record.id, None)

    def check(self, store: Store) -> None:
        """Check that each reading method returns the content of the model."""
        newest = sorted(self.jobs.values(), key=lambda job: -job.order)
        assert list(store.select()) == newest
        for limit in (1, 2, 100):
            assert list(store.select(limit=limit)) == newest[:limit]
        for states in (("QUEUED",), ("FAILED", "RUNNING"), STATE_NAMES):
            assert list(store.select(states)) == [job for job in newest if job.state.name in states]
            some = [job for job in newest if job.state.name in states and job.name == "digits"]
            assert list(store.select(states, "digits", 2)) == some[:2]
            assert store.select_ids(states, "digits", 2) == [job.id for job in some[:2]]
        found = store.records([job.id for job in newest[::2]] + ["no such job"])
        assert sorted(found, key=lambda job: -job.order) == newest[::2]
        assert store.unfinished() == [job for job in reversed(newest) if not job.state.ended]
        names = [job.state.name for job in newest]
        assert store.counts() == {name: names.count(name) for name in names}
        for prefix in ("", "a", "ab", "aba", "A", "%", "_"):
            for limit in (1, 100):
                assert store.ids(prefix, limit) == [job.id for job in newest if job.id.startswith(prefix)][:limit]
        assert store.uploads_in_use() == {sha for known in self.documents.values() for sha in known.files.values()}
        for job, record in self.jobs.items():
            assert store.get(job) == store.by_submission(record.submission_id) == record
            assert store.document(job) == self.documents[job]
            told = self.events[job]
            assert store.events(job) == told
            assert [store.events(job, after, 1) for after in range(len(told) + 1)] == [
                told[after : after + 1] for after in range(len(told) + 1)
            ]
        assert (store.get("?"), store.by_submission("no such"), store.events("?")) == (None, None, [])
        with pytest.raises(KeyError):
            store.document("?")


CHANGES = st.one_of(
    st.tuples(st.just(Model.insert), RECORDS, DOCUMENTS, EVENTS),
    st.tuples(st.just(Model.insert), RECORDS, DOCUMENTS, EVENTS),
    st.tuples(st.just(Model.update), RECORDS, st.lists(EVENTS, max_size=3)),
    st.tuples(st.just(Model.delete), RECORDS),
)


@settings(max_examples=20)
@given(st.lists(CHANGES, max_size=6))
def test_what_was_written_is_read_by_every_way(changes: list[tuple[Any, ...]]) -> None:
    async def perform(store: Store) -> None:
        for change, *values in changes:
            await change(model, store, *values)

    model = Model()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.sqlite3"
        with _opened(path) as store:
            asyncio.run(perform(store))
            model.check(store)
        with _opened(path) as store:
            model.check(store)


def test_any_thread_may_read(store: Store) -> None:
    async def scenario() -> None:
        taken, _ = await store.write(insert(job_record("a"), DOCUMENT, _event()))
        found = await asyncio.gather(*(asyncio.to_thread(store.get, "a") for _ in range(8)))
        assert found == [taken] * 8

    asyncio.run(scenario())


# several changes at once -------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(st.lists(st.sampled_from(["writes", "raises first", "raises last", "violates"]), max_size=12))
def test_a_change_that_raises_is_undone_and_no_other(kinds: list[str]) -> None:
    def change(number: int, kind: str) -> Callable[[sqlite3.Connection], Any]:
        write = insert(job_record(f"job-{number}"), DOCUMENT, _event())

        def trouble(connection: sqlite3.Connection) -> Any:
            if kind == "raises first":
                raise LookupError(TROUBLE)
            done = write(connection)
            if kind == "raises last":
                raise LookupError(TROUBLE)
            if kind == "violates":
                update(job_record(f"job-{number}", name="changed"), [_event(1)])(connection)  # event 1 exists already
            return done

        return trouble

    async def scenario(store: Store) -> None:
        held = Held()
        busy = await held.begin(store)
        tasks = [asyncio.create_task(store.write(change(*numbered))) for numbered in enumerate(kinds)]
        await asyncio.sleep(0)  # each has queued its change
        held.release()
        await busy
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [
            {"writes": tuple, "violates": sqlite3.IntegrityError}.get(kind, LookupError) for kind in kinds
        ]
        assert held.commits == 1 + bool(kinds)

    with tempfile.TemporaryDirectory() as folder, _opened(Path(folder) / "jobs.sqlite3") as store:
        asyncio.run(scenario(store))
        written = [f"job-{number}" for number, kind in enumerate(kinds) if kind == "writes"]
        assert sorted(job.id for job in store.select()) == sorted(written)
        for number in range(len(kinds)):
            assert len(store.events(f"job-{number}")) == (f"job-{number}" in written)


def test_five_hundred_writes_at_once_share_their_transactions(store: Store) -> None:
    n = 500

    async def scenario() -> None:
        held = Held()
        busy = await held.begin(store)
        tasks = [asyncio.create_task(store.write(insert(job_record(f"j{k}"), DOCUMENT, _event()))) for k in range(n)]
        await asyncio.sleep(0)
        held.release()
        await busy
        taken = await asyncio.gather(*tasks)
        assert held.commits == 1 + math.ceil(n / module._MOST_AT_ONCE)
        assert all(new for _, new in taken)
        assert [record.order for record, _ in taken] == list(range(1, n + 1))  # in the order of their arrival
        assert list(store.select()) == [record for record, _ in reversed(taken)]

    asyncio.run(scenario())


def test_of_many_who_submit_the_same_one_is_taken(store: Store) -> None:
    async def scenario() -> None:
        records = [job_record(f"j{k}", submission_id="the same") for k in range(50)]
        taken = await asyncio.gather(*(store.write(insert(record, DOCUMENT, _event())) for record in records))
        assert [new for _, new in taken] == [True] + [False] * 49
        assert {record.id for record, _ in taken} == {"j0"}
        assert len(list(store.select())) == 1

    asyncio.run(scenario())


def test_a_writer_who_no_longer_waits_holds_nobody_up(store: Store) -> None:
    async def scenario() -> None:
        held = Held()
        busy = await held.begin(store)
        tasks = [asyncio.create_task(store.write(insert(job_record(f"j{k}"), DOCUMENT, _event()))) for k in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        held.release()
        await busy
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes] == [False, True, False]

    asyncio.run(scenario())
    assert store.ids("", 10) == ["j2", "j1", "j0"]  # [Note: noted, then done]


def test_closing_writes_what_is_pending(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"

    async def scenario() -> None:
        store = Store(path)
        tasks = [asyncio.create_task(store.write(insert(job_record(f"j{k}"), DOCUMENT, _event()))) for k in range(300)]
        await asyncio.sleep(0)
        store.close()
        await asyncio.gather(*tasks)

    asyncio.run(scenario())
    with _opened(path) as store:
        assert len(list(store.select())) == 300


# a service that ends ------------------------------------------------------------------------------------------------


_KILLED_AFTER_AN_ANSWER = """
import asyncio, os, signal, sys
from pathlib import Path
from cluster.service.store import Store, insert, update
from tests.records import job_record
from tests.service_units.test_store import DOCUMENT, _event

async def main(path: str, answers: int) -> None:
    store, told = Store(Path(path)), 0

    async def submit(job: str) -> None:
        nonlocal told
        await store.write(insert(job_record(job), DOCUMENT, _event()))
        await store.write(update(job_record(job, step=7, events=2), [_event(2)]))
        os.write(1, f"{job}\\n".encode())
        told += 1
        if told == answers:
            os.kill(os.getpid(), signal.SIGKILL)

    await asyncio.gather(*(submit(f"j{k}") for k in range(40)))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.parametrize("answers", [1, 25])
def test_what_was_answered_survives_a_kill(tmp_path: Path, answers: int) -> None:
    path = tmp_path / "jobs.sqlite3"
    command = [sys.executable, "-c", _KILLED_AFTER_AN_ANSWER, str(path), str(answers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    told = done.stdout.split()
    assert len(told) == answers
    with _opened(path) as store:
        for job in told:
            found = store.get(job)
            assert found is not None
            assert (found.step, store.document(job), store.events(job)) == (7, DOCUMENT, [_event(1), _event(2)])
        for record in store.select():  # the other changes are there as a whole or not at all
            assert len(store.events(record.id)) == record.events
            assert store.document(record.id) == DOCUMENT


def test_a_store_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    with _opened(path) as store:
        asyncio.run(store.write(insert(job_record("a"), DOCUMENT, _event())))
    with sqlite3.connect(path) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA user_version = {version + 1}")
    with pytest.raises(UserMistake, match="written by a newer pipetrain") as refused:
        Store(path)
    (problem,) = refused.value.problems
    assert problem.startswith(f"{path}: ")
    assert f"store version {version + 1}, this one knows {version}" in problem
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT id FROM jobs").fetchall() == [("a",)]
        assert connection.execute("PRAGMA user_version").fetchone() == (version + 1,)
