"""Data files by the SHA-256 of their content: each kept once, whole and checked, or not at all.

`uploads/SHA256.EXT` is complete. `uploads/SHA256.part` is what has come of one so far; a broken upload goes on from
there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import time
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from weakref import WeakValueDictionary

from cluster.service.home import Home
from coordinator.source_names import EXTENSIONS, extension
from stages.errors import Refused, UserMistake

PART_BYTES = 2**20
_KEEP_UNUSED_S = 7 * 86_400.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


class WrongOffset(Refused):
    """The part that was sent does not follow what is there."""


class WrongChecksum(UserMistake):
    """What was sent is not what its SHA-256 says. Nothing of it is kept."""


def upload_path(home: Home, sha256: str, name: str) -> Path:
    """Where the content of a file of this name is kept."""
    return home.uploads / f"{sha256}{extension(name)}"


class Uploads:
    """Takes in data files."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def has(self, sha256: str, name: str) -> bool:
        """Whether the content is there, complete."""
        return _SHA256.fullmatch(sha256) is not None and upload_path(self._home, sha256, name).exists()

    async def take(
        self, sha256: str, size: int, ending: str, offset: int, parts: AsyncIterator[bytes]
    ) -> tuple[int, bool]:
        """Take in `parts` from `offset` on; how many bytes are there then, and whether the content is complete.

        Raises UserMistake for a header that makes no sense, WrongOffset, WrongChecksum.
        """
        if not _SHA256.fullmatch(sha256):
            raise UserMistake(f"sha256: got {sha256[:80]!r}, must be 64 lower-case hexadecimal digits")
        if ending not in EXTENSIONS:
            raise UserMistake(f"extension: got {ending[:20]!r}, must be one of {', '.join(EXTENSIONS)}")
        if size < 0 or offset < 0 or offset > size:
            raise UserMistake(f"size: got {size} and offset {offset}, must be 0 ≤ offset ≤ size")
        lock = self._locks.setdefault(sha256, asyncio.Lock())
        async with lock:  # of two who bring the same, the second finds it there
            return await self._append(sha256, size, ending, offset, parts)

    async def _append(
        self, sha256: str, size: int, ending: str, offset: int, parts: AsyncIterator[bytes]
    ) -> tuple[int, bool]:
        whole, partial = self._home.uploads / f"{sha256}{ending}", self._home.uploads / f"{sha256}.part"
        if whole.exists():
            os.utime(whole)
            return whole.stat().st_size, True
        there = partial.stat().st_size if partial.exists() else 0
        if there > size:
            partial.unlink()
            there = 0
        first = await anext(parts, None)
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
                first = await anext(parts, None)
        if there > size:
            partial.unlink()
            raise WrongChecksum(f"size: more than the {size} bytes that were announced came; nothing is kept")
        if there < size:
            return there, False
        await asyncio.to_thread(_finish, partial, whole, sha256)
        return size, True

    def sweep(self, in_use: Collection[str]) -> None:
        """Remove what no job has named for a week, and parts that nobody went on with."""
        old = time.time() - _KEEP_UNUSED_S
        for file in self._home.uploads.iterdir():
            with contextlib.suppress(OSError):
                if file.stat().st_mtime < old and (file.suffix == ".part" or file.stem not in in_use):
                    file.unlink()


def _finish(partial: Path, whole: Path, sha256: str) -> None:
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    if found != sha256:
        partial.unlink()
        raise WrongChecksum(f"sha256: the content is {found}, not {sha256}; nothing is kept, send it again")
    partial.replace(whole)
