"""Files and logs of a run directory for callers: every byte, with its checksum; every line, once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.service import files as module
from cluster.service.entry import Entry
from cluster.service.files import RUNNER, FilePart, file_parts, files_to_fetch, log_lines
from coordinator.queue.job_states import Running, Succeeded
from coordinator.run_files import MODEL_FILES, log_file
from stages.errors import Refused
from tests.records import job_record

PART = module._PART_BYTES
TORN = b"torn"
LINES = st.lists(st.sampled_from([b"\n", b"a\n", b"b c\n", b"\xff\r\n", b"\0\n"]), max_size=12)


def _bytes(n: int) -> bytes:
    return (b"0123456789abcde" * (n // 15 + 1))[:n]


def _write(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def _entry(*, ended: bool = False) -> Entry:
    return Entry(job_record("a-job", state=Succeeded(attempt=1) if ended else Running(attempt=1)))


def _end(entry: Entry) -> None:
    entry.record = replace(entry.record, state=Succeeded(attempt=1))


# files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 2 * PART - 1, 2 * PART, 2 * PART + 1, 3 * PART])
def test_parts_make_the_file_again(tmp_path: Path, size: int) -> None:
    content = _bytes(size)
    parts = list(file_parts(tmp_path, _write(tmp_path / "logs" / "worker-0.log", content)))
    assert b"".join(part.data for part in parts) == content
    assert [(part.path, part.size) for part in parts] == [("logs/worker-0.log", size)] + [("", 0)] * (len(parts) - 1)
    assert [part.sha256 for part in parts] == [""] * (len(parts) - 1) + [sha256(content).hexdigest()]
    assert [len(part.data) for part in parts[:-1]] == [PART] * (len(parts) - 1)
    assert len(parts) == max(1, -(-size // PART))


def test_an_empty_file_is_one_part(tmp_path: Path) -> None:
    empty = FilePart("a", 0, b"", sha256(b"").hexdigest())
    assert list(file_parts(tmp_path, _write(tmp_path / "a", b""))) == [empty]


@pytest.mark.parametrize("size", [1, PART, PART + 1])
def test_a_file_that_grows_is_sent_as_long_as_it_was(tmp_path: Path, size: int) -> None:
    file = _write(tmp_path / "metrics.jsonl", _bytes(size))
    parts = file_parts(tmp_path, file)
    found = [next(parts)]
    with file.open("ab") as opened:
        opened.write(b"more" * PART)
    found += parts
    assert b"".join(part.data for part in found) == _bytes(size)
    assert found[0].size == size
    assert found[-1].sha256 == sha256(_bytes(size)).hexdigest()


def test_a_file_that_was_cut_off_ends(tmp_path: Path) -> None:
    file = _write(tmp_path / "a", _bytes(3 * PART))
    parts = file_parts(tmp_path, file)
    found = [next(parts)]
    file.write_bytes(b"")
    found += parts
    assert b"".join(part.data for part in found) == _bytes(3 * PART)[:PART]
    assert (
        found[-1].sha256 == sha256(_bytes(3 * PART)[:PART]).hexdigest()
    )  # the announced size shows that it was longer


def test_a_caller_gets_all_files_but_hidden_ones_and_links(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no run directory"):
        files_to_fetch(tmp_path / "none", model=False)
    with pytest.raises(Refused, match="no run directory"):
        files_to_fetch(tmp_path, model=False)
    wanted = [_write(tmp_path / name, b"") for name in ("events.jsonl", "job.yaml", "logs/runner.log")]
    _write(tmp_path / ".model.json.part", b"")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "empty").mkdir()
    assert files_to_fetch(tmp_path, model=False) == wanted


def test_a_model_is_all_its_files_or_none(tmp_path: Path) -> None:
    for name in MODEL_FILES:
        with pytest.raises(Refused, match="saved no model"):
            files_to_fetch(tmp_path, model=True)
        _write(tmp_path / name, b"")
    _write(tmp_path / "metrics.jsonl", b"")
    assert files_to_fetch(tmp_path, model=True) == [tmp_path / name for name in MODEL_FILES]


# logs --------------------------------------------------------------------------------------------------------------


def _read(folder: Path, entry: Entry, *, worker: int | None = None, tail: int = 0) -> dict[int, bytes]:
    """Return the log lines that a caller without `follow` gets, by the process's number."""

    async def collect() -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        async for number, part in log_lines(folder, entry, worker=worker, follow=False, tail=tail):
            assert part.endswith(b"\n")
            found[number] = found.get(number, b"") + part
        return found

    return asyncio.run(collect())


@pytest.mark.parametrize("tail", range(6))
@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("lines", [[], [b"\n"], [b"a\n"], [b"a\n", b"b\n", b"\n", b"c\n"], [b"\n"] * 3])
def test_the_last_lines(tmp_path: Path, lines: list[bytes], ended: bool, tail: int) -> None:
    _write(tmp_path / "logs" / log_file(None), b"".join(lines))
    expected = b"".join(lines[-tail:])
    assert _read(tmp_path, _entry(ended=ended), tail=tail) == ({RUNNER: expected} if expected else {})


@pytest.mark.parametrize("tail", range(4))
def test_of_a_job_that_runs_only_whole_lines_are_told(tmp_path: Path, tail: int) -> None:
    lines = [b"a\n", b"b\n"]
    _write(tmp_path / "logs" / log_file(0), b"".join(lines) + TORN)
    assert _read(tmp_path, _entry(), tail=tail) == {0: b"".join(lines[-tail:])}


def test_what_an_ended_process_left_unfinished_is_told(tmp_path: Path) -> None:
    for number, content in enumerate([b"a\n" + TORN, TORN, b"a\n", b""]):
        _write(tmp_path / "logs" / log_file(number), content)
    assert _read(tmp_path, _entry(ended=True)) == {0: b"a\ntorn\n", 1: b"torn\n", 2: b"a\n"}


def test_each_process_has_its_number(tmp_path: Path) -> None:
    assert _read(tmp_path, _entry()) == {}
    numbers = [RUNNER, 0, 1, 2, 10]
    content = {number: f"this is {number}\n".encode() for number in numbers}
    for number, text in content.items():
        _write(tmp_path / "logs" / log_file(None if number == RUNNER else number), text)
    _write(tmp_path / "logs" / "worker-x.log", b"of nobody\n")
    _write(tmp_path / "logs" / "worker-1.log.old", b"of nobody\n")
    found = _read(tmp_path, _entry())
    assert list(found.items()) == list(content.items())  # the order counts, too
    for number in numbers:
        assert _read(tmp_path, _entry(), worker=number) == {number: content[number]}
    assert _read(tmp_path, _entry(), worker=7) == {}


def test_a_long_log_arrives_whole(tmp_path: Path) -> None:
    content = b"".join(b"%d\n" % n for n in range(100_000)) + b"x" * (PART + 1) + b"\n\n"
    _write(tmp_path / "logs" / log_file(3), content)
    assert len(content) > PART
    assert _read(tmp_path, _entry()) == {3: content}


async def _follow(folder: Path, entry: Entry, parts: Sequence[tuple[int, bytes]]) -> dict[int, bytes]:
    """Append each part to its worker's log after all earlier whole lines have arrived; then end the job. Return the
    sent text by worker."""
    found: dict[int, bytes] = {}
    arrived = asyncio.Condition()

    async def listen() -> None:
        async for number, part in log_lines(folder, entry, worker=None, follow=True, tail=0):
            assert part.endswith(b"\n")
            async with arrived:
                found[number] = found.get(number, b"") + part
                arrived.notify_all()

    def has_arrived(number: int, whole: bytes) -> bool:
        return found.get(number, b"") == whole

    async with asyncio.TaskGroup() as tasks:
        listener = tasks.create_task(listen())
        written: dict[int, bytes] = {}
        for number, part in parts:
            with (folder / "logs" / log_file(number)).open("ab") as file:
                file.write(part)
            written[number] = content = written.get(number, b"") + part
            whole = content[: content.rfind(b"\n") + 1]
            async with arrived:
                await arrived.wait_for(partial(has_arrived, number, whole))
        assert not listener.done()
        _end(entry)
    return found


@settings(max_examples=25)
@given(st.tuples(LINES, LINES, st.sampled_from([b"", TORN])), st.lists(st.integers(0, 60), max_size=5))
def test_who_follows_is_told_every_line_once(
    tmp_path_factory: pytest.TempPathFactory, lines: tuple[list[bytes], list[bytes], bytes], cuts: list[int]
) -> None:
    contents = [b"".join(lines[0]) + lines[2], b"".join(lines[1])]
    parts: list[tuple[int, bytes]] = []
    for number, content in enumerate(contents):
        places = sorted({0, *(cut % (len(content) + 1) for cut in cuts), len(content)})
        parts += [(number, content[start:end]) for start, end in pairwise(places)]
    folder = tmp_path_factory.mktemp("run")
    (folder / "logs").mkdir()

    async def scenario() -> dict[int, bytes]:
        async with asyncio.timeout(20):
            return await _follow(folder, _entry(), parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LOOK_EVERY_S", 0.001)
        found = asyncio.run(scenario())
    contents = [content + b"\n" if content and not content.endswith(b"\n") else content for content in contents]
    assert found == {number: content for number, content in enumerate(contents) if content}


def test_who_follows_may_begin_with_the_last_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.001)
    file = _write(tmp_path / "logs" / log_file(None), b"a\nb\nc\n")

    async def scenario() -> list[bytes]:
        entry, found = _entry(), list[bytes]()
        async with asyncio.timeout(20):
            async for _, part in log_lines(tmp_path, entry, worker=RUNNER, follow=True, tail=2):
                found.append(part)
                if len(found) == 1:
                    with file.open("ab") as opened:
                        opened.write(b"d\n")
                else:
                    _end(entry)
        return found

    assert asyncio.run(scenario()) == [b"b\nc\n", b"d\n"]


@pytest.mark.parametrize("tail", [1, 2])
def test_a_torn_last_line_is_one_of_the_last_lines(tmp_path: Path, tail: int) -> None:
    lines = [b"a\n", b"b\n", TORN + b"\n"]
    _write(tmp_path / "logs" / log_file(0), b"a\nb\n" + TORN)
    assert _read(tmp_path, _entry(ended=True), tail=tail) == {0: b"".join(lines[-tail:])}
