"""Data files by the SHA-256 of their content: each kept once, whole and checked, or not at all.

`uploads/SHA256.EXT` is complete. `uploads/SHA256.part` is what has come of one so far; a broken upload goes on from
there. Of several who bring the same content one sends, and the others wait for as long as it gets on; one that has all
but stalled gives way. What is not needed is swept while the service is up.
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
"""Of the disk, for what the service itself and its jobs write."""
_LOOK_S = 5.0
"""How often a sender who waits looks whether the one before it gets on."""
_SLOWEST_BYTES_S = 2**16
_SWEEP_S = 3600.0
_log = logging.getLogger(__name__)
_SHA256 = re.compile(r"[0-9a-f]{64}")


class WrongOffset(Refused):
    """The part that was sent does not follow what is there."""


class WrongChecksum(UserMistake):
    """What was sent is not what its SHA-256 says. Nothing of it is kept."""


def upload_path(home: Home, sha256: str, name: str) -> Path:
    """Where the content of a file of this name is kept."""
    return home.uploads / f"{sha256}{extension(name)}"


class _Sender:
    """Who sends a content now. `patience` is there while the next part of it is waited for."""

    def __init__(self) -> None:
        self.received = 0
        self.patience: asyncio.Timeout | None = None

    def give_way(self) -> None:
        """End the wait for its next part; while a part is being written, it is not waited for."""
        if self.patience is not None:
            self.patience.reschedule(asyncio.get_running_loop().time())

    async def next(self, parts: AsyncIterator[bytes]) -> bytes | None:
        """Its next part, None at the end. Raises WrongOffset if it has to give way: the client asks anew, and waits."""
        try:
            async with asyncio.timeout(None) as self.patience:
                part = await anext(parts, None)
        except TimeoutError:
            raise WrongOffset("another sender brings the same content faster; ask again how much is there") from None
        finally:
            self.patience = None
        self.received += 0 if part is None else len(part)
        return part


class Uploads:
    """Takes in data files of at most `max_bytes` each, and keeps those that no job names for `keep_s`."""

    def __init__(self, home: Home, *, max_bytes: int = MAX_UPLOAD_BYTES, keep_s: float = KEEP_UNUSED_S) -> None:
        self._home, self._max_bytes, self._keep_s = home, max_bytes, keep_s
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._senders: dict[str, _Sender] = {}
        self._coming: dict[str, int] = {}
        """Bytes that are still to come, by content."""

    def has(self, sha256: str, name: str) -> bool:
        """Whether the content is there, complete. If it is, it has just been named, and is kept for a while longer."""
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
        """Take in `parts` from `offset` on; how many bytes are there then, and whether the content is complete.

        Raises UserMistake for a header that makes no sense, Refused for a size that is not allowed or that the disk
        has no room for, WrongOffset, WrongChecksum.
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
        await self._wait(sha256, lock)  # of two who bring the same, the second finds it there
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
        """Until it is our turn to send a content: the one before is through, has left, or hardly gets on."""
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
        """Room on the disk for so many more bytes, and for what others are sending. Raises Refused."""
        self._coming[sha256] = n_bytes
        free = max(0, shutil.disk_usage(self._home.uploads).free - _FREE_BYTES)
        if sum(self._coming.values()) > free:
            raise Refused(
                f"size: {n_bytes:,} bytes are still to come, and the disk of {self._home.uploads} has room for "
                f"{free:,}, which are partly promised to others"
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
            raise WrongChecksum(f"size: more than the {size} bytes that were announced came; nothing is kept")
        if there < size:
            return there, False
        await asyncio.to_thread(_finish, partial, whole, sha256)
        return size, True

    async def keep_sweeping(self, in_use: Callable[[], Collection[str]]) -> None:
        """Sweep now, and again and again for as long as the service is up. `in_use` is asked in a thread."""
        while True:
            try:
                await self.sweep(in_use)
            except Exception:  # a store that cannot be read for a moment must not end it
                _log.exception("uploads could not be swept")
            await asyncio.sleep(min(_SWEEP_S, self._keep_s / 4))

    async def sweep(self, in_use: Callable[[], Collection[str]]) -> None:
        """Remove what no job has named for so long, and parts that nobody went on with.

        Looking and removing happen in a thread; between them each file is moved aside here, where nobody can name it at
        the same time.
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
                if self._is_old(file) and (file.suffix not in FILES or file.stem not in in_use):
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
