"""Senders of uploads: whole, in parts, interrupted, or held at a gate."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import strategies as st

from cluster.service.home import Home
from cluster.service.uploads import Uploads

T = TypeVar("T")
CONTENT = bytes(range(100))
CONTENTS = st.binary(max_size=60)
DAY_S = 86_400.0


class Broken(Exception):
    """The error of a broken connection."""


async def parts_of(parts: Sequence[bytes], *, breaks: bool = False) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if breaks:
        raise Broken


def split(content: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Yield parts of at least one byte, as the interface requires."""
    places = sorted({0, *(cut % (len(content) + 1) for cut in cuts), len(content)})
    return [content[start:end] for start, end in pairwise(places)]


def digest_of(content: bytes) -> str:
    return sha256(content).hexdigest()


def run(scenario: Coroutine[Any, Any, T]) -> T:
    async def within() -> T:
        async with asyncio.timeout(20):
            return await scenario

    return asyncio.run(within())


def made_home(folder: Path) -> Home:
    home = Home(folder)
    home.make()
    return home


@contextmanager
def temporary_home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory() as folder:
        yield made_home(Path(folder))


def kept(home: Home) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in home.uploads.iterdir()}


async def send(
    uploads: Uploads, content: bytes, parts: Sequence[bytes], offset: int = 0, *, breaks: bool = False, size: int = -1
) -> tuple[int, bool]:
    """Send these parts, with a header for `content`."""
    size = len(content) if size < 0 else size
    return await uploads.take(digest_of(content), size, ".csv", offset, parts_of(parts, breaks=breaks))


class Gate:
    """Parts that stop after the first few until the gate is opened. The connection may break at the end."""

    def __init__(self, content: bytes, first: int, *, breaks: bool = False) -> None:
        self._content, self._first, self._breaks = content, first, breaks
        self.waits, self.opened, self.asked = asyncio.Event(), asyncio.Event(), False

    async def parts(self) -> AsyncIterator[bytes]:
        self.asked = True
        if self._first:
            yield self._content[: self._first]
        self.waits.set()
        await self.opened.wait()
        if self._breaks:
            raise Broken
        yield self._content[self._first :]
