"""What is wrong with the store, told as one sentence: full for now, out of reach for now, or damaged for good."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from cluster.actors.disk_room import NO_ROOM, is_full
from cluster.service.refusals import NoSpace, StoreDamaged, StoreTrouble, StoreUnwritable

_PASSING = (
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY),
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM),
)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
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
    """What an error that came up with the store at `path` means; None where the store is not to blame."""
    if isinstance(error, StoreTrouble):
        return error
    if isinstance(error, OSError):
        if error.errno not in _PASSING_ERRNO:
            return None
        return _unwritable(Path(error.filename or path), os.strerror(error.errno).lower(), full=error.errno in NO_ROOM)
    if not isinstance(error, sqlite3.Error):
        return None
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary in _DAMAGED:
        return StoreDamaged(damaged(path, str(error)))
    if primary in _PASSING or (primary is None and isinstance(error, sqlite3.OperationalError)):
        full = primary == sqlite3.SQLITE_FULL or "disk is full" in str(error) or is_full(path.parent)
        return _unwritable(path, str(error), full=full)
    return None


def no_room(error: BaseException) -> NoSpace | None:
    """The refusal of a call for which there is no room on disk; None for any other error."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return NoSpace(f"no space left on device: {error.filename or 'the home of the service'} cannot be written")
    return None


def _unwritable(path: Path, why: str, *, full: bool) -> StoreUnwritable:
    again = "the service goes on by itself when"
    if full:
        return NoSpace(f"no space left on device: {path} cannot be written; {again} there is room")
    return StoreUnwritable(f"{path} cannot be written: {why}; {again} it can")


def damaged(path: Path, why: str) -> str:
    """One sentence: the path, and what can be done."""
    return (
        f"{path}: the job store is damaged ({why}); put a copy of it back, or move it away (with {path.name}-wal and "
        f"{path.name}-shm) to begin with an empty one; what jobs left in {path.parent / 'runs'} stays as it is"
    )


def gone(path: Path) -> StoreUnwritable:
    """The home was taken away from under the service."""
    return StoreUnwritable(
        f"{path} is not there any more: the home was moved or deleted while its service is up; put it back, or end the "
        f"service (process {os.getpid()})"
    )
