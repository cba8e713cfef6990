"""Writes events.jsonl of a run: an event in each line, and the last one even if the disk is full.

[Note: the last word] The end of a run must always reach the service and the user. So `ending` keeps the event in
memory, because the service also gets it from the runner; and a reserve file, removed when the disk is full, makes room
for the line.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

from cluster.actors.disk_room import NO_ROOM
from coordinator import run_files

ENDINGS = ("finished", "stopped", "failed", "interrupted")
"""Events that end a run: no event follows them."""
_RESERVE_BYTES = 64 * 1024  # enough for a failure with a long traceback


class EventLog:
    """Appends to `folder/events.jsonl`. Every event contains `stamp`. Any thread may call. Raises OSError."""

    def __init__(self, folder: Path, stamp: Mapping[str, Any]) -> None:
        self.path, self._stamp = folder / run_files.EVENTS, dict(stamp)
        self._reserve = folder / run_files.RESERVE
        self._lock = threading.Lock()
        self._file: FileIO | None = FileIO(self.path, "ab")
        self._torn = False
        self.ending: Mapping[str, Any] | None = None
        """The event that ended the run, even if it could not be written; None before."""
        try:
            self._reserve_room()
        except OSError:
            self.close()
            raise

    def append(self, what: str, **details: Any) -> None:
        """Append an event with its time. Only the first event of ENDINGS is kept, and it never raises: see
        [Note: the last word]."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        event = {"time": now, "event": what, **self._stamp, **details}
        ends = what in ENDINGS
        with self._lock:
            if ends and self.ending is not None:
                return
            if ends:
                self.ending = event
            assert self._file is not None, "the log is open"
            line = (json.dumps(event) + "\n").encode()
            try:
                self._write(b"\n" + line if self._torn else line, last=ends)
            except OSError:
                if not ends:
                    raise

    def _write(self, rest: bytes, *, last: bool) -> None:
        assert self._file is not None, "the log is open"
        while rest:
            try:
                written = self._file.write(rest) or 0
            except OSError as error:
                if not (last and error.errno in NO_ROOM and self._give_back()):
                    raise
                continue
            rest = rest[written:]
            self._torn = bool(rest)

    def is_there(self) -> bool:
        """Whether the file is still at its path. False if its folder was deleted or moved."""
        if self._file is None:
            return False
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False
        except OSError:
            return True  # unknown: assume that it is

    def close(self) -> None:
        """Remove the reserve and close the file."""
        with self._lock, contextlib.suppress(OSError):
            self._give_back()
            if self._file is not None:
                self._file.close()
            self._file = None

    def _reserve_room(self) -> None:
        descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, _RESERVE_BYTES)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that cannot reserve space
                raise
        finally:
            os.close(descriptor)

    def _give_back(self) -> bool:
        """Remove the reserve; return whether there was one."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        return True
