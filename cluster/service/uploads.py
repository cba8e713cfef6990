"""Uploaded data files by the SHA-256 of their content: each is kept once, complete and checked.

`uploads/SHA256.EXT` is complete. `uploads/SHA256.part` is the part received so far; an interrupted upload continues
from it. If several clients upload the same content, one sends and the others wait; if it almost stalls, another one
takes over. Files that no job needs are removed while the service is up.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from pathlib import Path
from weakref import WeakValueDictionary

from cluster.service.home import Home
from coordinator.job.source_names import FILES, extension
from stages.errors import Refused, UserMistake

PART_BYTES = 2**20
MAX_UPLOAD_BYTES = 16 * 2**30
KEEP_UNUSED_S = 7 * 86_400.0
_FREE_BYTES = 256 * 2**20
"""Disk space that uploads leave free for the files of the service and its jobs."""
_LOOK_S = 5.0
"""How often a waiting sender checks the progress of the present one."""
_SLOWEST_BYTES_S = 2**16
_SWEEP_S = 3600.0
_log = logging.getLogger(__name__)
_SHA256 = re.compile(r"[0-9a-f]{64}")


class WrongOffset(Refused):
    """The part that was sent does not continue the content received so far."""


class WrongChecksum(UserMistake):
    """The content does not have its SHA-256 or its size. Nothing of it is kept."""


def upload_path(home: Home, sha256: str, name: str) -> Path:
    """Return the path of the uploaded content of a file with this name."""
    return home.uploads / f"{sha256}{extension(name)}"


class _Sender:
    """The present sender of a content. `patience` is not None while the service waits for its next part."""

    def __init__(self) -> None:
        self.received = 0
        self.patience: asyncio.Timeout | None = None

    def give_way(self) -> None:
        """End the wait for its next part, if the service waits for one now."""
        if self.patience is not None:
            self.patience.reschedule(asyncio.get_running_loop().time())

    async def next(self, parts: AsyncIterator[bytes]) -> bytes | None:
        """Return its next part, None at the end. Raises WrongOffset if it must give way: the client then starts again
        and waits."""
        try:
            async with asyncio.timeout(None) as self.patience:
                part = await anext(parts, None)
        except TimeoutError:
            raise WrongOffset("another client sends the same content faster; ask again how much is there") from None
        finally:
            self.patience = None
        self.received += 0 if part is None else len(part)
        return part


class Uploads:
    """Receives data files of at most `max_bytes` each, and keeps a file that no job names for `keep_s` seconds."""

    def __init__(self, home: Home, *, max_bytes: int = MAX_UPLOAD_BYTES, keep_s: float = KEEP_UNUSED_S) -> None:
        self._home, self._max_bytes, self._keep_s = home, max_bytes, keep_s
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._senders: dict[str, _Sender] = {}
        self._coming: dict[str, int] = {}
        """Bytes still to come, by the SHA-256 of the content."""

    def has(self, sha256: str, name: str) -> bool:
        """Whether the complete content is there. If so, `keep_s` starts again, because a job has just named it."""
        if _SHA256.fullmatch(sha256) is None:
            return False
        try:
            os.utime(upload_path(self._home, sha256, name))
        except FileNotFoundError:
            return False
        return True

    async def take(
        self, sha256: str, size: int, ending: str, offset: int, parts: AsyncIterator[bytes]
    ) -> tuple[int, bool]:
        """Receive `parts` from `offset` on; return the number of bytes received in all, and whether that is complete.

        Raises UserMistake for an invalid header, Refused if the size is above the limit or the disk has no room for it,
        WrongOffset, WrongChecksum.
        """
        if not _SHA256.fullmatch(sha256):
            raise UserMistake(f"sha256: got {sha256[:80]!r}, must be 64 lower-case hexadecimal digits")
        if ending not in FILES:
            raise UserMistake(f"extension: got {ending[:20]!r}, must be one of {', '.join(FILES)}")
        if size < 0 or offset < 0 or offset > size:
            raise UserMistake(f"size: got {size} and offset {offset}, must be 0 ≤ offset ≤ size")
        if size > self._max_bytes:
            raise Refused(
                f"size: got {size:,} bytes, this service takes files of at most {self._max_bytes:,} "
                "(`pipetrain up --max-upload`)"
            )
        lock = self._locks.setdefault(sha256, asyncio.Lock())
        await self._wait(sha256, lock)  # if two send the same, the second one finds it complete
        sender = self._senders[sha256] = _Sender()
        try:
            return await self._append(sha256, size, ending, offset, parts, sender)
        except OSError as error:
            raise Refused(f"the content cannot be written: {error.strerror}; what came before is kept") from None
        finally:
            del self._senders[sha256]
            self._coming.pop(sha256, None)
            lock.release()

    async def _wait(self, sha256: str, lock: asyncio.Lock) -> None:
        """Wait until this sender may send: the present one is done, has left, or is too slow."""
        before: tuple[_Sender | None, int] = (None, 0)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await lock.acquire()
                return
            sender = self._senders.get(sha256)
            if sender is not None and sender is before[0] and sender.received - before[1] < _LOOK_S * _SLOWEST_BYTES_S:
                sender.give_way()
            before = (sender, 0 if sender is None else sender.received)

    def _require_room(self, sha256: str, n_bytes: int) -> None:
        """Raise Refused unless the disk has room for `n_bytes` more, and for the uploads of all other senders."""
        self._coming[sha256] = n_bytes
        free = max(0, shutil.disk_usage(self._home.uploads).free - _FREE_BYTES)
        if sum(self._coming.values()) > free:
            raise Refused(
                f"size: {n_bytes:,} bytes are still to come, and the disk of {self._home.uploads} has room for "
                f"{free:,}, a part of which other uploads need"
                if n_bytes <= free
                else f"size: {n_bytes:,} bytes are still to come, and the disk of {self._home.uploads} has room for "
                f"{free:,}"
            )

    async def _append(
        self, sha256: str, size: int, ending: str, offset: int, parts: AsyncIterator[bytes], sender: _Sender
    ) -> tuple[int, bool]:
        whole, partial = self._home.uploads / f"{sha256}{ending}", self._home.uploads / f"{sha256}.part"
        if whole.exists():
            os.utime(whole)
            return whole.stat().st_size, True
        there = partial.stat().st_size if partial.exists() else 0
        if there > size:
            partial.unlink()
            there = 0
        self._require_room(sha256, size - there)
        first = await sender.next(parts)
        if first is None and there < size:
            return there, False
        if first is not None and offset != there:
            raise WrongOffset(f"offset: got {offset}, but {there} bytes are there; go on from {there}")
        with partial.open("ab") as file:
            while first is not None:
                there += len(first)
                if there > size:
                    break
                await asyncio.to_thread(file.write, first)
                self._coming[sha256] = size - there
                first = await sender.next(parts)
        if there > size:
            partial.unlink()
            raise WrongChecksum(f"size: got more than the announced {size} bytes; nothing is kept")
        if there < size:
            return there, False
        await asyncio.to_thread(_finish, partial, whole, sha256)
        return size, True

    async def keep_sweeping(self, in_use: Callable[[], Collection[str]]) -> None:
        """Sweep now, and repeatedly for as long as the service is up. A thread calls `in_use`."""
        while True:
            try:
                await self.sweep(in_use)
            except Exception:  # a store that cannot be read for a moment must not end this loop
                _log.exception("uploads could not be swept")
            await asyncio.sleep(min(_SWEEP_S, self._keep_s / 4))

    async def sweep(self, in_use: Callable[[], Collection[str]]) -> None:
        """Remove files that no job has named for `keep_s`, and parts that were not continued for as long.

        A thread finds and removes the files. In between, the event loop moves each file aside, so that no job can name
        it at the same time.
        """
        for file in await asyncio.to_thread(lambda: list(self._unused(in_use()))):
            aside = file.with_name(f".{file.name}.swept")
            with contextlib.suppress(OSError):
                if self._is_old(file):
                    file.rename(aside)
                    await asyncio.to_thread(aside.unlink)

    def _unused(self, in_use: Collection[str]) -> Iterator[Path]:
        for file in self._home.uploads.iterdir():
            with contextlib.suppress(OSError):
                if self._is_old(file) and (
                    extension(file.name) not in FILES or file.name.partition(".")[0] not in in_use
                ):
                    yield file

    def _is_old(self, file: Path) -> bool:
        return file.stat().st_mtime < time.time() - self._keep_s


def _finish(partial: Path, whole: Path, sha256: str) -> None:
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    if found != sha256:
        partial.unlink()
        raise WrongChecksum(f"sha256: the content is {found}, not {sha256}; nothing is kept, send it again")
    partial.replace(whole)
