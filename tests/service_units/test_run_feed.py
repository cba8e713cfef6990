"""Following a run directory: whole lines, each once, for any split of the writes and a crash at any point."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.service import run_feed
from cluster.service.job_stats import JobStats
from cluster.service.run_feed import RunFeed, read_lines, retire_attempt, rows_file

STEPS = st.builds(lambda step, loss: {"kind": "step", "step": step, "loss": loss}, st.integers(1, 999), st.floats(0, 1))
EVALUATIONS = st.builds(lambda loss: {"kind": "eval", "loss": loss}, st.floats(0, 1))
ROWS = st.lists(STEPS | EVALUATIONS, max_size=12)
READ_BYTES = st.sampled_from([1, 7, 40, 2**18])


def _line(content: object) -> bytes:
    return json.dumps(content).encode() + b"\n"


@st.composite
def splits(draw: st.DrawFn, of: st.SearchStrategy[bytes]) -> list[bytes]:
    """Draw the parts in which some bytes are appended."""
    whole = draw(of)
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    return [whole[start:end] for start, end in pairwise([0, *cuts, len(whole)])]


@contextmanager
def _folder(read_bytes: int = 2**18) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_feed, "_READ_BYTES", read_bytes)
        yield Path(folder)


def _append(file: Path, part: bytes) -> None:
    with file.open("ab") as opened:
        opened.write(part)


def _whole_lines(content: bytes) -> list[bytes]:
    return content[: content.rfind(b"\n") + 1].splitlines(keepends=True)


# lines -------------------------------------------------------------------------------------------------------------


@given(splits(st.lists(st.sampled_from([b"\n", b"a", b"bcd", b"\r", b"\0"]), max_size=20).map(b"".join)), READ_BYTES)
def test_each_whole_line_is_read_once(parts: Sequence[bytes], most: int) -> None:
    with _folder() as folder:
        file, place, found = folder / "file", 0, b""
        assert read_lines(file, 0, most) == b""
        for part in parts:
            _append(file, part)
            while lines := read_lines(file, place, most):
                assert lines.endswith(b"\n")
                assert len(lines) <= lines.index(b"\n") + most  # about as many bytes as requested
                place += len(lines)
                found += lines
            assert found == b"".join(_whole_lines(file.read_bytes()))
        assert read_lines(file, place + 1000, most) == read_lines(file, 0, 0) == b""


# rows --------------------------------------------------------------------------------------------------------------


@given(splits(ROWS.map(lambda rows: b"".join(map(_line, rows)))), READ_BYTES)
@example([b'{"kind": "st', b'ep", "step": 1, "loss": 0.5}', b"\n"], 1)
def test_rows_are_known_as_soon_as_they_are_whole(parts: Sequence[bytes], read_bytes: int) -> None:
    with _folder(read_bytes) as folder:
        feed = RunFeed(folder, 1, 0)
        assert not feed.look_for_rows()
        known: list[bytes] = []
        for part in parts:
            _append(folder / "metrics.jsonl", part)
            whole = _whole_lines((folder / "metrics.jsonl").read_bytes())
            assert feed.look_for_rows() == (len(whole) > len(known))
            assert not feed.look_for_rows()
            known = whole
            assert feed.metrics_end == sum(map(len, known))
            rows = [json.loads(line) for line in known]
            for kind, last in (("step", feed.last_step), ("eval", feed.last_eval)):
                assert last == next((row for row in reversed(rows) if row["kind"] == kind), None)


# events ------------------------------------------------------------------------------------------------------------


@st.composite
def event_lines(draw: st.DrawFn) -> list[bytes]:
    """Draw lines of events.jsonl: events of three attempts, unfinished lines that were ended later, and other lines."""
    event = st.builds(
        lambda n, text: {"event": text, "attempt": n}, st.integers(1, 3), st.text('ab\n\r"{ä\u2028', max_size=4)
    )
    whole = event.map(_line)
    torn = st.builds(lambda line, cut: line[: cut % (len(line) - 2)] + b"\n", whole, st.integers(0, 200))
    other = st.sampled_from([b"[]\n", b"1\n", b"null\n", b"\xff\xfe{}\n", b'{"event": "old"}\n', b"\n"])
    return draw(st.lists(st.one_of(whole, whole, torn, other), max_size=12))


def _events(lines: Sequence[bytes], attempt: int) -> list[tuple[Any, int]]:
    """Return the events of an attempt among whole lines, with the offset at which each ends."""
    found, end = [], 0
    for line in lines:
        end += len(line)
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict) and content.get("attempt") == attempt:
            found.append((content, end))
    return found


@settings(max_examples=60)
@given(splits(event_lines().map(b"".join)), READ_BYTES)
def test_each_event_of_the_attempt_is_told_once(parts: Sequence[bytes], read_bytes: int) -> None:
    with _folder(read_bytes) as folder:
        feed, told = RunFeed(folder, 2, 0), list[tuple[Any, int]]()
        assert feed.new_events() == []
        for part in parts:
            _append(folder / "events.jsonl", part)
            told += [(event.content, event.end) for event in feed.new_events()]
            assert told == _events(_whole_lines((folder / "events.jsonl").read_bytes()), 2)


@settings(max_examples=50)
@given(event_lines(), READ_BYTES)
def test_a_new_service_goes_on_after_the_last_event_that_it_noted(lines: Sequence[bytes], read_bytes: int) -> None:
    with _folder(read_bytes) as folder:
        (folder / "events.jsonl").write_bytes(b"".join(lines))
        expected = _events(lines, 2)
        for place, (_, end) in enumerate(expected):
            rest = [(event.content, event.end) for event in RunFeed(folder, 2, end).new_events()]
            assert rest == expected[place + 1 :]


def test_a_torn_event_does_not_swallow_the_first_of_the_next_attempt(tmp_path: Path) -> None:
    events, first = tmp_path / "events.jsonl", {"event": "preparing", "attempt": 2}
    _append(events, _line({"event": "started", "attempt": 1}) + b'{"event": "fini')
    feed = RunFeed(tmp_path, 1, 0)
    assert [event.content["event"] for event in feed.new_events()] == ["started"]
    retire_attempt(tmp_path, 1)
    assert feed.new_events() == []
    _append(events, _line(first))
    assert [event.content for event in RunFeed(tmp_path, 2, 0).new_events()] == [first]


# attempts ----------------------------------------------------------------------------------------------------------


def _mutations(event: str, arguments: tuple[Any, ...]) -> bool:
    return event in ("os.mkdir", "os.rename", "os.remove", "os.truncate") or (
        event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR) != 0
    )


def _dies_before(n: int, action: Callable[[], object]) -> bool:
    """Perform the action in a process that dies just before its n-th change of the disk, counted from 0; return False
    if the action ends before."""
    pid = os.fork()
    if pid == 0:
        left = n

        def die(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if _mutations(event, arguments):
                if left == 0:
                    os._exit(1)
                left -= 1

        try:
            sys.addaudithook(die)
            action()
            os._exit(0)
        finally:
            os._exit(2)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 1), "the action raised"
    return code == 1


CONTENTS = st.none() | splits(ROWS.map(lambda rows: b"".join(map(_line, rows)))).map(lambda parts: b"".join(parts[:-1]))


@settings(max_examples=50)
@given(st.lists(CONTENTS, min_size=1, max_size=4))
def test_the_rows_of_each_attempt_are_found_at_any_time(contents: Sequence[bytes | None]) -> None:
    """None: the attempt was lost before it wrote any row. The last line of an attempt may be unfinished."""
    with _folder() as folder:
        for present, content in enumerate(contents, 1):
            for _ in range(3 if present > 1 else 0):  # before the move, after it, and after a second one
                for attempt in range(1, present):
                    file, expected = rows_file(folder, attempt, present), contents[attempt - 1] or b""
                    assert (file.read_bytes() if file.exists() else b"") == expected
                assert not rows_file(folder, present, present).exists()
                retire_attempt(folder, present - 1)
            if content is not None:
                _append(folder / "metrics.jsonl", content)
            for attempt in range(1, present + 1):
                file, expected = rows_file(folder, attempt, present), contents[attempt - 1] or b""
                assert (file.read_bytes() if file.exists() else b"") == expected
            feed = RunFeed(folder, present, 0)
            feed.look_for_rows()
            assert feed.metrics_end == sum(map(len, _whole_lines(content or b"")))


def _tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


BEFORE: dict[str, dict[str, bytes]] = {
    "nothing, not even the folder": {},
    "events, no rows": {"events.jsonl": b'{"event": 1}\n'},
    "rows, one torn": {"metrics.jsonl": b'{"kind": "step"}\n{"ki', "events.jsonl": b'{"event": 1}\n'},
    "rows, no events": {"metrics.jsonl": b'{"kind": "step"}\n'},
}


def _lay_out(folder: Path, files: dict[str, bytes]) -> Path:
    if files:
        folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("before", BEFORE)
def test_retiring_again_after_a_crash_at_any_point(tmp_path: Path, before: str) -> None:
    expected = _lay_out(tmp_path / "expected" / "run", BEFORE[before])
    retire_attempt(expected, 1)
    rows = BEFORE[before].get("metrics.jsonl", b"")
    assert _tree(expected)["metrics.attempt-1.jsonl"] == rows
    assert "metrics.jsonl" not in _tree(expected)

    points = 0
    while True:
        folder = _lay_out(tmp_path / str(points) / "run", BEFORE[before])
        died = _dies_before(points, partial(retire_attempt, folder, 1))
        found = rows_file(folder, 1, 2)
        assert (found.read_bytes() if found.exists() else b"") == rows
        assert not rows_file(folder, 2, 2).exists()
        for _ in range(2):
            retire_attempt(folder, 1)
            assert _tree(folder) == _tree(expected)
        if not died:
            break
        points += 1
    assert points >= 1, "the action changed nothing on disk"


def test_what_the_next_attempt_wrote_is_left_alone(tmp_path: Path) -> None:
    _append(tmp_path / "metrics.jsonl", b"first\n")
    retire_attempt(tmp_path, 1)
    _append(tmp_path / "metrics.jsonl", b"second\n")
    before = _tree(tmp_path)
    retire_attempt(tmp_path, 1)
    assert _tree(tmp_path) == before == {"metrics.attempt-1.jsonl": b"first\n", "metrics.jsonl": b"second\n"}


def test_a_torn_event_is_ended_after_a_crash_at_any_point(tmp_path: Path) -> None:
    """A crash between moving the rows aside and ending the line once left the line unfinished for ever."""
    files = {"metrics.jsonl": b"", "events.jsonl": b'{"event": "fini'}
    points, died = 0, True
    while died:
        folder = _lay_out(tmp_path / str(points) / "run", files)
        died = _dies_before(points, partial(retire_attempt, folder, 1))
        retire_attempt(folder, 1)
        assert _tree(folder)["events.jsonl"] == b'{"event": "fini\n', points
        points += 1


def test_figures_can_be_looked_at_while_a_long_file_is_read_in(tmp_path: Path) -> None:
    """A thread once added rows while a scrape iterated over them: `deque mutated during iteration`."""
    row = {
        "kind": "step",
        "epoch": 0,
        "samples": 64,
        "loss": 1.0,
        "grad_norm": 1.0,
        "learning_rate": 0.1,
        "bubble": 0.3,
    }
    lines = [_line({**row, "step": step, "seconds": 0.15 + step % 7 / 50}) for step in range(20_000)]
    _append(tmp_path / "metrics.jsonl", b"".join(lines))

    async def play() -> None:
        stats = JobStats(job="j", name="n", attempt=1)
        feed = RunFeed(tmp_path, 1, 0, stats)
        following, looks, longest, threads = asyncio.create_task(feed.follow_rows()), 0, 0, set()
        take = stats.take_row

        def taken(row: Any) -> None:
            threads.add(threading.get_ident())
            take(row)

        patch = pytest.MonkeyPatch()
        patch.setattr(JobStats, "take_row", lambda stats, row: taken(row))
        try:
            before = 0
            while not following.done():
                await asyncio.sleep(0)
                looks += 1
                assert stats.recent.bubble is None or stats.recent.bubble > 0
                longest, before = max(longest, stats.steps - before), stats.steps
        finally:
            patch.undo()
        assert await following
        assert stats.steps == 20_000
        assert stats.samples == 64 * 20_000
        assert threads == {threading.get_ident()}, "figures change in the loop's thread alone"
        assert longest <= 2 * run_feed._ROWS_AT_ONCE, "and a little at a time"

    asyncio.run(play())


def test_a_row_that_a_full_disk_tore_is_left_out(tmp_path: Path) -> None:
    _append(tmp_path / "metrics.jsonl", b'{"kind": "step", "step": 0, "lo{"kind": "step", "step": 1, "loss": 1}\n')
    _append(tmp_path / "metrics.jsonl", _line({"kind": "step", "step": 2, "loss": 1.0}))
    feed = RunFeed(tmp_path, 1, 0)
    assert feed.look_for_rows()
    assert feed.last_step == {"kind": "step", "step": 2, "loss": 1.0}
    assert not feed.look_for_rows()
