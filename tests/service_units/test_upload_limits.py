"""Uploads that stall, that are too large, or that no job needs any more."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.service import uploads as uploads_module
from cluster.service.home import Home
from cluster.service.uploads import Uploads, WrongOffset, upload_path
from coordinator.job.source_names import EXTENSIONS
from stages.errors import Refused
from tests.service_units.senders import (
    CONTENT,
    DAY_S,
    Broken,
    Gate,
    digest_of,
    kept,
    parts_of,
    run,
    send,
)


def test_a_sender_that_stalls_gives_way(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender of one byte a minute once blocked all other senders of the same content."""
    monkeypatch.setattr(uploads_module, "_LOOK_S", 0.05)

    async def scenario() -> None:
        uploads, gate = Uploads(home), Gate(CONTENT, 40)
        stalled = asyncio.create_task(uploads.take(digest_of(CONTENT), 100, ".csv", 0, gate.parts()))
        await gate.waits.wait()
        assert await send(uploads, CONTENT, []) == (40, False)  # the other sender queries first, and so takes over
        with pytest.raises(WrongOffset, match="ask again how much is there"):
            await stalled
        assert await send(uploads, CONTENT, [CONTENT[40:]], 40) == (100, True)
        assert kept(home) == {f"{digest_of(CONTENT)}.csv": CONTENT}

    run(scenario())


def test_a_sender_that_gets_on_is_waited_for(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads_module, "_LOOK_S", 0.05)
    monkeypatch.setattr(uploads_module, "_SLOWEST_BYTES_S", 1)

    async def scenario() -> None:
        uploads = Uploads(home)

        async def steadily() -> AsyncIterator[bytes]:
            for byte in CONTENT[:50]:
                yield bytes([byte])
                await asyncio.sleep(0.01)  # five bytes between two checks
            yield CONTENT[50:]

        one = asyncio.create_task(uploads.take(digest_of(CONTENT), 100, ".csv", 0, steadily()))
        await asyncio.sleep(0)
        assert await send(uploads, CONTENT, []) == (100, True)
        assert await one == (100, True)

    run(scenario())


# what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [101, 2**40, 2**62])
def test_a_file_that_is_larger_than_allowed_is_refused(home: Home, size: int) -> None:
    uploads = Uploads(home, max_bytes=100)
    with pytest.raises(Refused, match=f"^size: got {size:,} bytes, this service takes files of at most 100"):
        run(uploads.take(digest_of(CONTENT), size, ".csv", 0, parts_of([CONTENT])))
    assert kept(home) == {}
    assert run(send(uploads, CONTENT, [CONTENT])) == (100, True)


def test_what_the_disk_has_no_room_for_is_refused_before_it_comes(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    free = uploads_module._FREE_BYTES + 150
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))

    async def scenario() -> None:
        uploads, gate = Uploads(home), Gate(CONTENT, 0)
        with pytest.raises(Refused, match=r"^size: 151 bytes are still to come, and the disk of .* has room for 150$"):
            await uploads.take("0" * 64, 151, ".csv", 0, parts_of([CONTENT]))
        one = asyncio.create_task(uploads.take(digest_of(CONTENT), 100, ".csv", 0, gate.parts()))
        await gate.waits.wait()
        with pytest.raises(Refused, match="a part of which other uploads need"):
            await send(uploads, b"x" * 60, [b"x" * 60])
        assert await send(uploads, b"x" * 50, [b"x" * 50]) == (50, True)
        gate.opened.set()
        assert await one == (100, True)
        assert await send(uploads, b"y" * 60, [b"y" * 60]) == (60, True)  # no room stays reserved

    run(scenario())


def test_a_full_disk_is_told_and_what_came_is_kept(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        uploads = Uploads(home)
        with pytest.raises(Broken):
            await send(uploads, CONTENT, [CONTENT[:40]], breaks=True)
        with monkeypatch.context() as full:
            full.setattr(Path, "open", _no_space)
            with pytest.raises(Refused, match="cannot be written: No space left on device; what came before is kept"):
                await send(uploads, CONTENT, [CONTENT[40:]], 40)
        assert await send(uploads, CONTENT, [CONTENT[40:]], 40) == (100, True)

    run(scenario())


def _no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# what is removed ---------------------------------------------------------------------------------------------------


def test_what_no_job_has_named_for_a_week_is_removed(home: Home) -> None:
    ages = {"6 days": 6, "8 days": 8}
    for age, days in ages.items():
        for use in ("used", "free"):
            for ending in (*EXTENSIONS, ".part"):
                file = home.uploads / f"{digest_of(f'{use} {age}'.encode())}{ending}"
                file.write_text(f"{use} {age} {ending}")
                then = time.time() - days * DAY_S
                os.utime(file, (then, then))
    in_use = {digest_of(f"used {age}".encode()) for age in ages}
    run(Uploads(home).sweep(lambda: in_use))
    expected = {f"{use} 6 days {ending}" for use in ("used", "free") for ending in (*EXTENSIONS, ".part")}
    expected |= {f"used 8 days {ending}" for ending in EXTENSIONS}
    assert {content.decode() for content in kept(home).values()} == expected
    run(Uploads(home).sweep(lambda: in_use))
    assert {content.decode() for content in kept(home).values()} == expected


def test_what_is_kept_for_how_long_is_a_choice(home: Home) -> None:
    async def scenario() -> None:
        uploads = Uploads(home, keep_s=3600)
        for content, age in ((b"old", 3700), (b"young", 3500), (b"named again", 3700)):
            await send(uploads, content, [content])
            then = time.time() - age
            os.utime(upload_path(home, digest_of(content), "a.csv"), (then, then))
        assert uploads.has(digest_of(b"named again"), "a.csv")  # a job names it
        await uploads.sweep(set)
        assert set(kept(home).values()) == {b"young", b"named again"}

    run(scenario())


def test_it_is_swept_while_the_service_is_up(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service once swept only at its start. A store that fails for a moment must not end the sweeping."""

    async def scenario() -> None:
        uploads, asked = Uploads(home, keep_s=0.2), 0
        part = home.uploads / f"{'0' * 64}.part"

        def in_use() -> set[str]:
            nonlocal asked
            asked += 1
            if asked == 1:
                raise OSError("the store is busy")
            return set()

        async def until_gone() -> None:
            while part.exists():
                await asyncio.sleep(0.01)

        sweeping = asyncio.create_task(uploads.keep_sweeping(in_use))
        for _ in range(2):
            part.write_bytes(b"nobody goes on with it")
            os.utime(part, (0, 0))
            await until_gone()
        sweeping.cancel()
        assert asked >= 3

    run(scenario())
