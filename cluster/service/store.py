"""The job store: SQLite with one writer. All changes that arrive during a transaction share the next one.

When `write` returns, the change is on disk. Readers have connections of their own, and the write-ahead log lets them
read during a transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from cluster.service.records import EventRecord, JobDocument, JobRecord
from cluster.service.refusals import StoreDamaged
from cluster.service.store_errors import damaged, gone, trouble_of
from cluster.service.store_rows import COLUMNS, UnreadableRow, event_of, record_of, text_of, values_of
from stages.errors import UserMistake

T = TypeVar("T")
Write = Callable[[sqlite3.Connection], T]

_MOST_AT_ONCE = 256
_MIGRATIONS = (
    """
    CREATE TABLE jobs (
        "order" INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        submission_id TEXT NOT NULL UNIQUE,
        priority INTEGER NOT NULL,
        workers INTEGER NOT NULL,
        cpus INTEGER NOT NULL,
        memory INTEGER NOT NULL,
        state TEXT NOT NULL,
        evidence TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        step INTEGER NOT NULL,
        steps_total INTEGER,
        loss REAL,
        validation_loss REAL,
        validation_accuracy REAL,
        submitted_at REAL NOT NULL,
        started_at REAL,
        ended_at REAL,
        events INTEGER NOT NULL,
        events_read INTEGER NOT NULL,
        force INTEGER NOT NULL,
        runner_pid INTEGER
    ) STRICT;
    CREATE INDEX jobs_by_state ON jobs (state);
    CREATE TABLE documents (id TEXT PRIMARY KEY, document TEXT NOT NULL, files TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE events (
        job TEXT NOT NULL,
        seq INTEGER NOT NULL,
        time REAL NOT NULL,
        kind TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        text TEXT NOT NULL,
        details TEXT NOT NULL,
        PRIMARY KEY (job, seq)
    ) STRICT, WITHOUT ROWID;
    """,
    "ALTER TABLE jobs ADD COLUMN remote INTEGER NOT NULL DEFAULT 0;",
    """
    ALTER TABLE jobs ADD COLUMN best_validation_loss REAL;
    ALTER TABLE jobs ADD COLUMN samples_per_second REAL;
    ALTER TABLE jobs ADD COLUMN stages INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN schedule TEXT NOT NULL DEFAULT '';
    ALTER TABLE jobs ADD COLUMN batch_size INTEGER NOT NULL DEFAULT 0;
    UPDATE jobs SET
        stages = coalesce(json_extract(document, '$.pipeline.stages'), 0),
        schedule = coalesce(json_extract(document, '$.pipeline.schedule'), ''),
        batch_size = coalesce(json_extract(document, '$.training.batch_size'), 0)
    FROM documents WHERE documents.id = jobs.id AND json_valid(document);
    """,
    """
    ALTER TABLE jobs ADD COLUMN validation_perplexity REAL;
    ALTER TABLE jobs ADD COLUMN validation_bits_per_byte REAL;
    """,
    """
    ALTER TABLE jobs ADD COLUMN preempt INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN resumed_from TEXT NOT NULL DEFAULT '';
    """,
)

_SELECT = f'SELECT "order", {", ".join(COLUMNS)} FROM jobs'


class Store:
    """The jobs of one home. Call `write` in the event loop's thread; any thread may call the reading methods."""

    def __init__(self, path: Path) -> None:
        """Open or make the store at `path`. Raises UserMistake if a newer version wrote it, StoreTrouble if it is
        damaged or cannot be written."""
        self.path = path
        try:
            _require_filled(path)
            self._writer = self._connect()
            self._migrate()
            self._file = path.stat()
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
            raise trouble_of(error, path) or error from None
        self._readers = threading.local()
        self._pending: queue.SimpleQueue[tuple[Write[Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="store", daemon=True)
        self._thread.start()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=30)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # an accepted job survives a power failure
        return connection

    def _migrate(self) -> None:
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        if version > len(_MIGRATIONS):
            raise UserMistake(
                f"{self.path}: was written by a newer pipetrain (store version {version}, this one knows "
                f"{len(_MIGRATIONS)}); install that one, or choose another --home"
            )
        for number, script in enumerate(_MIGRATIONS[version:], version + 1):
            self._writer.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")

    # writing -------------------------------------------------------------------------------------------------------

    async def write(self, change: Write[T]) -> T:
        """Make a change, and return its result once it is on disk. An exception of the change undoes it and is raised.

        Raises StoreUnwritable if nothing can be written now: a later try may succeed.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.put((change, future))
        return await future

    def _write_all(self) -> None:
        while (first := self._pending.get()) is not None:
            batch = [first]
            while len(batch) < _MOST_AT_ONCE and not self._pending.empty():
                more = self._pending.get()
                if more is None:
                    self._pending.put(None)
                    break
                batch.append(more)
            self._write_batch(batch)

    def _write_batch(self, batch: Sequence[tuple[Write[Any], asyncio.Future[Any]]]) -> None:
        outcomes: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []
        try:
            self._require_there()
            self._writer.execute("BEGIN IMMEDIATE")
            for change, future in batch:
                self._writer.execute("SAVEPOINT one")
                try:
                    outcomes.append((future, change(self._writer), None))
                    self._writer.execute("RELEASE one")
                except Exception as error:
                    if trouble_of(error, self.path) is not None:
                        raise  # the store failed, not this change: SQLite may have undone the whole transaction
                    self._writer.execute("ROLLBACK TO one")
                    self._writer.execute("RELEASE one")
                    outcomes.append((future, None, error))
            self._writer.execute("COMMIT")
        except Exception as error:  # such as a full disk; callers wait for every outcome
            with contextlib.suppress(sqlite3.Error):
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
            failure = trouble_of(error, self.path) or error
            outcomes = [(future, None, failure) for _, future in batch]
        with contextlib.suppress(RuntimeError):  # the event loop is closed, so no caller waits
            batch[0][1].get_loop().call_soon_threadsafe(_resolve, outcomes)

    def _require_there(self) -> None:
        """Raise StoreUnwritable if the file was moved or deleted: changes written to it would be lost."""
        try:
            if os.path.samestat(self.path.stat(), self._file):
                return
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
        raise gone(self.path)

    def close(self) -> None:
        """Write all pending changes, and close the store."""
        self._pending.put(None)
        self._thread.join()
        self._writer.close()

    # reading -------------------------------------------------------------------------------------------------------

    @property
    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._readers, "connection", None)
        if connection is None:
            self._require_there()
            connection = self._readers.connection = self._connect()
            connection.execute("PRAGMA query_only = ON")
        return connection

    def _read(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return all rows of a query. Raises StoreTrouble."""
        try:
            return self._reader.execute(query, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise trouble_of(error, self.path) or error from None

    def get(self, job: str) -> JobRecord | None:
        """Return the job with exactly this id, if any."""
        return next(map(self._record, self._read(f"{_SELECT} WHERE id = ?", (job,))), None)

    def by_submission(self, submission_id: str) -> JobRecord | None:
        """Return the job that was submitted with this submission id, if any."""
        return next(map(self._record, self._read(f"{_SELECT} WHERE submission_id = ?", (submission_id,))), None)

    def _record(self, row: Sequence[Any]) -> JobRecord:
        """Return the record of a row. Raises StoreDamaged."""
        with self._whole("a job"):
            return record_of(row)

    @contextlib.contextmanager
    def _whole(self, what: str) -> Iterator[None]:
        """Turn errors of reading rows in the block into StoreDamaged."""
        try:
            yield
        except (ValueError, TypeError, AttributeError) as error:
            told = str(error) if isinstance(error, UnreadableRow) else f"{what}: {error}"
            raise StoreDamaged(damaged(self.path, told)) from None

    def unfinished(self) -> list[JobRecord]:
        """Return all jobs that have not ended, in the order of their submission."""
        ended = "('SUCCEEDED', 'FAILED', 'STOPPED')"
        return [self._record(row) for row in self._read(f'{_SELECT} WHERE state NOT IN {ended} ORDER BY "order"')]

    def select(self, states: Sequence[str] = (), name: str = "", limit: int = 0) -> Iterator[JobRecord]:
        """Return the matching jobs, newest first; `limit` 0 means all."""
        return map(self._record, self._selected(_SELECT, states, name, limit))

    def select_ids(self, states: Sequence[str] = (), name: str = "", limit: int = 0) -> list[str]:
        """Return the ids of the matching jobs, newest first; `limit` 0 means all."""
        return [row[0] for row in self._selected("SELECT id FROM jobs", states, name, limit)]

    def _selected(self, select: str, states: Sequence[str], name: str, limit: int) -> list[Any]:
        conditions, values = ["1"], list[Any]()
        if states:
            conditions.append(f"state IN ({', '.join('?' * len(states))})")
            values += states
        if name:
            conditions.append("name = ?")
            values.append(name)
        query = f'{select} WHERE {" AND ".join(conditions)} ORDER BY "order" DESC LIMIT ?'
        return self._read(query, (*values, limit or -1))

    def records(self, jobs: Sequence[str]) -> list[JobRecord]:
        """Return the jobs with these ids that exist, in any order."""
        query = f"{_SELECT} WHERE id IN ({', '.join('?' * len(jobs))})"
        return list(map(self._record, self._read(query, jobs)))

    def counts(self) -> dict[str, int]:
        """Return the number of jobs in each state."""
        return dict(self._read("SELECT state, count(*) FROM jobs GROUP BY state"))

    def ids(self, prefix: str, limit: int) -> list[str]:
        """Return at most `limit` ids that begin with `prefix`, newest first."""
        query = 'SELECT id FROM jobs WHERE substr(id, 1, ?) = ? ORDER BY "order" DESC LIMIT ?'
        return [row[0] for row in self._read(query, (len(prefix), prefix, limit))]

    def names(self, limit: int) -> list[str]:
        """Return the names of the newest `limit` jobs, each once, newest first."""
        query = 'SELECT name FROM jobs ORDER BY "order" DESC LIMIT ?'
        return list(dict.fromkeys(row[0] for row in self._read(query, (limit,))))

    def document(self, job: str) -> JobDocument:
        """Return a job's document. Raises KeyError for an unknown job."""
        for document, files in self._read("SELECT document, files FROM documents WHERE id = ?", (job,)):
            with self._whole(f"the document of job {job}"):
                return JobDocument(document=text_of(document), files=json.loads(files))
        raise KeyError(job)

    def events(self, job: str, after: int = 0, limit: int = -1) -> list[EventRecord]:
        """Return at most `limit` (-1: all) events of a job, in order, after event number `after`."""
        query = (
            "SELECT seq, time, kind, attempt, text, details FROM events WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?"
        )
        rows = self._read(query, (job, after, limit))
        with self._whole(f"the events of job {job}"):
            return [event_of(row) for row in rows]

    def uploads_in_use(self) -> set[str]:
        """Return the SHA-256 of every uploaded file that a job names."""
        rows = self._read("SELECT files FROM documents WHERE files != '{}'")
        with self._whole("the documents"):
            return {sha256 for (files,) in rows for sha256 in json.loads(files).values()}


# changes, for Store.write --------------------------------------------------------------------------------------------


def insert(record: JobRecord, document: JobDocument, first: EventRecord) -> Write[tuple[JobRecord, bool]]:
    """Insert a job unless its submission id is known. The result is the job, with its order, and whether it is new."""

    def change(connection: sqlite3.Connection) -> tuple[JobRecord, bool]:
        known = _by_submission(connection, record.submission_id)
        if known is not None:
            return known, False
        names = ", ".join(COLUMNS)
        marks = ", ".join("?" * len(COLUMNS))
        cursor = connection.execute(f"INSERT INTO jobs ({names}) VALUES ({marks})", values_of(record))
        connection.execute(
            "INSERT INTO documents VALUES (?, ?, ?)", (record.id, document.document, json.dumps(dict(document.files)))
        )
        _insert_events(connection, record.id, [first])
        assert cursor.lastrowid is not None, "an INSERT has one"
        return replace(record, order=cursor.lastrowid), True

    return change


def update(record: JobRecord, events: Sequence[EventRecord]) -> Write[None]:
    """Write the record's values and its new events."""

    def change(connection: sqlite3.Connection) -> None:
        names = ", ".join(f"{name} = ?" for name in COLUMNS)
        connection.execute(f"UPDATE jobs SET {names} WHERE id = ?", (*values_of(record), record.id))
        _insert_events(connection, record.id, events)

    return change


def probe() -> Write[None]:
    """Write to the disk without changing anything, to test whether the store can be written."""

    def change(connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")

    return change


def delete(job: str) -> Write[None]:
    """Delete a job with its document and events."""

    def change(connection: sqlite3.Connection) -> None:
        for table, column in (("jobs", "id"), ("documents", "id"), ("events", "job")):
            connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (job,))

    return change


def _insert_events(connection: sqlite3.Connection, job: str, events: Sequence[EventRecord]) -> None:
    connection.executemany(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(job, e.seq, e.time, e.kind, e.attempt, e.text, json.dumps(dict(e.details))) for e in events],
    )


def _by_submission(connection: sqlite3.Connection, submission_id: str) -> JobRecord | None:
    row = connection.execute(f"{_SELECT} WHERE submission_id = ?", (submission_id,)).fetchone()
    return None if row is None else record_of(row)


def _resolve(outcomes: Sequence[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    for future, result, error in outcomes:
        if future.cancelled():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def _require_filled(path: Path) -> None:
    """Raise StoreDamaged if the file is empty, as after a power failure, and there are run directories: a new store
    would not know their jobs."""
    runs = path.parent / "runs"
    if path.exists() and path.stat().st_size == 0 and runs.is_dir() and any(runs.iterdir()):
        raise StoreDamaged(damaged(path, "it is empty, and there are run directories of jobs"))
