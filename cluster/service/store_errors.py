"""Turns errors of the store into one sentence each: the disk is full, the store cannot be reached, or it is damaged."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from cluster.actors.disk_room import NO_ROOM, is_full
from cluster.service.refusals import NoSpace, StoreDamaged, StoreTrouble, StoreUnwritable
from cluster.service.store_rows import UnreadableRow

_PASSING = (
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY),
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM),
)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_SIGNS_OF_DAMAGE = ("decode to UTF-8", "no such column", "no such table")
"""Parts of SQLite's error texts that mean damage: pipetrain writes only UTF-8, and queries only tables that it made."""
_PASSING_ERRNO = (
    *NO_ROOM,
    errno.EIO,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EACCES,
    errno.EMFILE,
    errno.ENFILE,
)


def trouble_of(error: BaseException, path: Path) -> StoreTrouble | None:
    """Return the StoreTrouble that an error of the store at `path` means; None if the store is not the cause."""
    if isinstance(error, StoreTrouble):
        return error
    if isinstance(error, OSError):
        if error.errno not in _PASSING_ERRNO:
            return None
        return _unwritable(Path(error.filename or path), os.strerror(error.errno).lower(), full=error.errno in NO_ROOM)
    if isinstance(error, UnicodeDecodeError | UnreadableRow):  # of a text, a row or the columns
        return StoreDamaged(damaged(path, str(error)))
    if not isinstance(error, sqlite3.Error):
        return None
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary in _DAMAGED or any(sign in str(error) for sign in _SIGNS_OF_DAMAGE):
        return StoreDamaged(damaged(path, str(error)))
    if primary in _PASSING or (primary is None and isinstance(error, sqlite3.OperationalError)):
        full = primary == sqlite3.SQLITE_FULL or "disk is full" in str(error) or is_full(path.parent)
        return _unwritable(path, str(error), full=full)
    return None


def file_trouble(error: BaseException) -> StoreUnwritable | None:
    """Return the refusal of a call that cannot read or write a file of the home, because the disk is full or read-only
    or the run directory was removed. None for any other error."""
    if not isinstance(error, OSError) or not (error.errno in _PASSING_ERRNO or error.filename):
        return None
    file = error.filename or "the home of the service"
    if error.errno in NO_ROOM:
        return NoSpace(f"no space left on device: {file} cannot be written")
    return StoreUnwritable(f"{file}: {(error.strerror or type(error).__name__).lower()}")


def _unwritable(path: Path, why: str, *, full: bool) -> StoreUnwritable:
    again = "the service goes on by itself when"
    if full:
        return NoSpace(f"no space left on device: {path} cannot be written; {again} there is room")
    return StoreUnwritable(f"{path} cannot be written: {why}; {again} it can")


def damaged(path: Path, why: str) -> str:
    """Return a sentence with the path and what the user can do. `why` may quote bytes of the store's file."""
    why = " ".join("".join(c if c.isprintable() else " " for c in why).split())
    return (
        f"{path}: the job store is damaged ({why}); put a copy of it back, or move it away (with {path.name}-wal and "
        f"{path.name}-shm) to begin with an empty one; the files of jobs in {path.parent / 'runs'} stay"
    )


def gone(path: Path) -> StoreUnwritable:
    """Return the refusal after the home was moved or deleted while the service is up."""
    return StoreUnwritable(
        f"{path} is not there any more: the home was moved or deleted while its service was up; put it back, or end "
        f"the service (process {os.getpid()})"
    )
