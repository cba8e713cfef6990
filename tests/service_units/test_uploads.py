"""Uploads: each content is kept whole and checked, or not at all, for any number of interruptions."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.service.home import Home
from cluster.service.uploads import Uploads, WrongChecksum, WrongOffset, upload_path
from coordinator.job.source_names import FILES
from stages.errors import UserMistake
from tests.service_units.senders import (
    CONTENT,
    CONTENTS,
    DAY_S,
    Broken,
    Gate,
    digest_of,
    kept,
    parts_of,
    run,
    send,
    split,
    temporary_home,
)

# one sender --------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(CONTENTS, st.lists(st.integers(0, 60)), st.sampled_from(FILES))
def test_a_content_arrives_in_any_parts(content: bytes, cuts: list[int], ending: str) -> None:
    with temporary_home() as home:
        uploads, digest = Uploads(home), digest_of(content)
        assert not uploads.has(digest, f"a{ending}")
        parts = split(content, cuts)
        taken = run(uploads.take(digest, len(content), ending, 0, parts_of(parts)))
        assert taken == (len(content), True)
        assert uploads.has(digest, f"some/where/ELSE{ending.upper()}")
        assert kept(home) == {f"{digest}{ending}": content}
        assert upload_path(home, digest, f"x{ending}").read_bytes() == content


@settings(max_examples=60)
@given(CONTENTS, st.lists(st.tuples(st.integers(0, 60), st.booleans(), st.booleans()), max_size=5), st.data())
def test_a_broken_upload_goes_on_where_it_broke(
    content: bytes, stops: list[tuple[int, bool, bool]], data: st.DataObject
) -> None:
    """Each try sends some bytes, then breaks or ends; the service may be restarted in between."""

    async def scenario(home: Home) -> None:
        uploads, there = Uploads(home), 0
        for stop, breaks, anew in stops:
            uploads = Uploads(home) if anew else uploads
            if there < len(content):
                assert await send(uploads, content, []) == (there, False)  # a sender's query
            reached = min(len(content), there + stop)
            parts = split(content[there:reached], data.draw(st.lists(st.integers(0, 60), max_size=3)))
            if breaks:
                with pytest.raises(Broken):
                    await send(uploads, content, parts, there, breaks=True)
            else:
                taken = await send(uploads, content, parts, there)
                assert taken == (reached, reached == len(content))
                if reached == len(content):
                    break
            there = reached
            assert not uploads.has(digest_of(content), "a.csv")
            assert b"".join(kept(home).values()) == content[:there]
        taken = await send(uploads, content, [content[there:]] if there < len(content) else [], there)
        assert taken == (len(content), True)
        assert kept(home) == {f"{digest_of(content)}.csv": content}

    with temporary_home() as home:
        run(scenario(home))


@given(st.integers(0, 100), st.integers(0, 100))
@settings(max_examples=40)
def test_only_the_offset_that_follows_is_taken(there: int, offset: int) -> None:
    async def scenario(home: Home) -> None:
        uploads = Uploads(home)
        with pytest.raises(Broken):
            await send(uploads, CONTENT, [CONTENT[:there]] if there else [], breaks=True)
        before = kept(home)
        assert b"".join(before.values()) == CONTENT[:there]
        rest = [CONTENT[offset:]] if offset < len(CONTENT) else [b"more"]
        if offset != there:
            with pytest.raises(WrongOffset, match=f"^offset: got {offset}, but {there} bytes are there"):
                await send(uploads, CONTENT, rest, offset)
            assert kept(home) == before
        elif offset < len(CONTENT):
            assert await send(uploads, CONTENT, rest, offset) == (len(CONTENT), True)

    with temporary_home() as home:
        run(scenario(home))


@given(CONTENTS, CONTENTS, st.integers(0, 60))
@settings(max_examples=40)
def test_of_a_content_with_another_checksum_nothing_is_kept(content: bytes, sent: bytes, cut: int) -> None:
    sent = (sent + content)[: len(content)]

    async def scenario(home: Home) -> None:
        uploads = Uploads(home)
        if sent != content:
            with pytest.raises(WrongChecksum, match=f"{digest_of(sent)}, not {digest_of(content)}") as wrong:
                await send(uploads, content, split(sent, [cut]))
            assert len(wrong.value.problems) == 1
            assert kept(home) == {}
        assert await send(uploads, content, split(content, [cut])) == (len(content), True)
        assert kept(home) == {f"{digest_of(content)}.csv": content}

    with temporary_home() as home:
        run(scenario(home))


@pytest.mark.parametrize("before", [0, 40, 100])
@pytest.mark.parametrize("parts", [[101], [100, 1], [50, 51], [1000, 1000]], ids=str)
def test_of_more_bytes_than_were_announced_nothing_is_kept(home: Home, before: int, parts: list[int]) -> None:
    async def scenario() -> None:
        uploads = Uploads(home)
        with pytest.raises(Broken):
            await send(uploads, CONTENT, [CONTENT[:before]] if before else [], breaks=True)
        sent = [b"x" * n for n in parts]
        with pytest.raises(WrongChecksum, match="got more than the announced 100 bytes"):
            await send(uploads, CONTENT, sent, before)
        assert kept(home) == {}
        assert await send(uploads, CONTENT, [CONTENT]) == (100, True)

    run(scenario())


def test_what_is_there_is_not_taken_again(home: Home) -> None:
    async def scenario() -> None:
        uploads, digest = Uploads(home), digest_of(CONTENT)
        await send(uploads, CONTENT, [CONTENT])
        os.utime(upload_path(home, digest, "a.csv"), (0, 0))
        for offset in (0, 7, 100):
            assert await send(uploads, CONTENT, [b"something else"], offset) == (100, True)
        assert kept(home) == {f"{digest}.csv": CONTENT}
        assert time.time() - upload_path(home, digest, "a.csv").stat().st_mtime < DAY_S  # a job has just named it
        assert not uploads.has(digest, "a.npz")
        assert await uploads.take(digest, 100, ".npz", 0, parts_of([CONTENT])) == (100, True)
        assert kept(home) == {f"{digest}.csv": CONTENT, f"{digest}.npz": CONTENT}

    run(scenario())


NONSENSE: dict[str, tuple[str, int, str, int]] = {
    "no digest": ("", 100, ".csv", 0),
    "capitals": ("A" * 64, 100, ".csv", 0),
    "too short": ("0" * 63, 100, ".csv", 0),
    "too long": ("0" * 65, 100, ".csv", 0),
    "a line end": ("0" * 64 + "\n", 100, ".csv", 0),
    "a path": ("../" * 20 + "abcd", 100, ".csv", 0),
    "other digits": ("\u0660" * 64, 100, ".csv", 0),
    "no ending": ("0" * 64, 100, "", 0),
    "no dot": ("0" * 64, 100, "csv", 0),
    "capital ending": ("0" * 64, 100, ".CSV", 0),
    "path in the ending": ("0" * 64, 100, "/../../x.csv", 0),
    "unfinished": ("0" * 64, 100, ".part", 0),
    "negative size": ("0" * 64, -1, ".csv", 0),
    "negative offset": ("0" * 64, 100, ".csv", -1),
    "beyond the end": ("0" * 64, 100, ".csv", 101),
}


@pytest.mark.parametrize("header", NONSENSE)
def test_a_header_that_makes_no_sense_is_one_line(home: Home, header: str) -> None:
    digest, size, ending, offset = NONSENSE[header]
    uploads = Uploads(home)
    with pytest.raises(UserMistake, match=r"^(sha256|extension|size): got .*, must be ") as refused:
        run(uploads.take(digest, size, ending, offset, parts_of([CONTENT])))
    assert len(refused.value.problems) == 1
    assert kept(home) == {}
    assert not uploads.has(digest, f"a{ending}")


# several senders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1, 99])
def test_the_second_of_two_who_bring_the_same_finds_it_there(home: Home, first: int) -> None:
    async def scenario() -> None:
        uploads, gate, second = Uploads(home), Gate(CONTENT, first), Gate(CONTENT, 100)
        one = asyncio.create_task(uploads.take(digest_of(CONTENT), 100, ".csv", 0, gate.parts()))
        await gate.waits.wait()
        other = asyncio.create_task(uploads.take(digest_of(CONTENT), 100, ".csv", 0, second.parts()))
        await send(uploads, b"another content", [b"another content"])  # a second content need not wait
        assert not other.done()
        gate.opened.set()
        assert await one == await other == (100, True)
        assert not second.asked
        assert kept(home)[f"{digest_of(CONTENT)}.csv"] == CONTENT
        assert len(kept(home)) == 2

    run(scenario())


@pytest.mark.parametrize("first", [0, 1, 99])
def test_the_second_goes_on_where_the_first_broke_off(home: Home, first: int) -> None:
    async def scenario() -> None:
        uploads, gate = Uploads(home), Gate(CONTENT, first, breaks=True)
        one = asyncio.create_task(uploads.take(digest_of(CONTENT), 100, ".csv", 0, gate.parts()))
        await gate.waits.wait()
        other = asyncio.create_task(send(uploads, CONTENT, [CONTENT]))
        gate.opened.set()
        with pytest.raises(Broken):
            await one
        if first:
            with pytest.raises(WrongOffset, match=f"go on from {first}$"):
                await other
            assert await send(uploads, CONTENT, [CONTENT[first:]], first) == (100, True)
        else:
            assert await other == (100, True)
        assert kept(home) == {f"{digest_of(CONTENT)}.csv": CONTENT}

    run(scenario())


def test_a_sender_whose_call_is_cancelled_lets_the_next_one_in(home: Home) -> None:
    async def scenario() -> None:
        uploads, gate = Uploads(home), Gate(CONTENT, 40)
        one = asyncio.create_task(uploads.take(digest_of(CONTENT), 100, ".csv", 0, gate.parts()))
        await gate.waits.wait()
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        assert await send(uploads, CONTENT, []) == (40, False)
        assert await send(uploads, CONTENT, [CONTENT[40:]], 40) == (100, True)

    run(scenario())


def test_many_who_bring_the_same_make_one_file(home: Home) -> None:
    async def scenario() -> None:
        uploads = Uploads(home)
        taken = await asyncio.gather(*(send(uploads, CONTENT, split(CONTENT, [k])) for k in range(20)))
        assert taken == [(100, True)] * 20
        assert kept(home) == {f"{digest_of(CONTENT)}.csv": CONTENT}

    run(scenario())


def test_a_sender_can_ask_after_a_break_behind_the_last_byte(home: Home) -> None:
    """It queries from offset 0 without data. The answer was once WrongOffset for ever."""

    async def scenario() -> None:
        uploads = Uploads(home)
        with pytest.raises(Broken):
            await send(uploads, CONTENT, [CONTENT], breaks=True)
        assert await send(uploads, CONTENT, []) == (len(CONTENT), True)

    run(scenario())
