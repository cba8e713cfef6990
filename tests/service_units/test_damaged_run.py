"""Run directories with damaged files, or with fifos and folders instead: only their job is affected, and says why."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.dashboard.log_tail import LogTail
from cluster.dashboard.stats_archive import _sampled_losses
from cluster.run.run_dir import RunDir
from cluster.service.files import file_parts, log_lines
from cluster.service.job_stats import JobStats
from cluster.service.metrics_jobs import job_facts, job_text
from cluster.service.run_feed import RunFeed, read_lines, retire_attempt
from cluster.service.watch import Watcher
from cluster.wire import pipetrain_pb2 as pb
from coordinator.train.rows import EvalRow, StepRow
from tests.jobs import digits_job
from tests.service_units.scripted import Scripted, scripted
from tests.service_units.test_files import _entry


def _replace(file: Path, kind: str) -> None:
    """Replace a file by a folder, or by a fifo, which makes its reader wait."""
    file.unlink(missing_ok=True)
    os.mkfifo(file) if kind == "fifo" else file.mkdir()


async def _trains(service: Scripted, job: str) -> None:
    await service.submit(job)
    await service.until(lambda: service.state(job) == "STARTING")
    service.writes("started", job, workers=[])
    await service.until(lambda: service.state(job) == "RUNNING")


@pytest.mark.parametrize("kind", ["fifo", "folder"])
@pytest.mark.parametrize("name", ["events.jsonl", "metrics.jsonl"])
def test_a_job_whose_files_are_none_tells_it_ends_and_holds_nobody_up(tmp_path: Path, name: str, kind: str) -> None:
    """A fifo once stopped the service's event loop for ever."""

    async def play() -> None:
        async with scripted(tmp_path / "home") as service:
            await _trains(service, "job1")
            _replace(service.home.run_directory("job1") / name, kind)
            what = "is a fifo, must be a regular file" if kind == "fifo" else "Is a directory"
            await service.until(lambda: "run directory cannot be read: " in service.reason("job1"), service.reason)
            assert what in service.reason("job1")
            assert name in service.reason("job1")
            await _trains(service, "job2")
            service.writes("finished", "job2", step=10)
            await service.until(lambda: service.state("job2") == "SUCCEEDED")
            ending = {"event": "failed", "attempt": 1, "cause": "no disk", "kind": "HostFailed"}
            await service.jobs.runner_gone("job1", 1, "its runner ended", ending)
            assert (service.state("job1"), service.reason("job1")) == ("FAILED", "no disk")

    asyncio.run(play())


READERS: dict[str, Callable[[Path], object]] = {
    "lines": lambda file: read_lines(file, 0, 10),
    "a part for a caller": lambda file: list(file_parts(file.parent, file)),
    "the logs": lambda file: asyncio.run(_all_logs(file.parents[1], tail=0)),
    "the end of the logs": lambda file: asyncio.run(_all_logs(file.parents[1], tail=3)),
}
SILENT: dict[str, Callable[[Path], object]] = {
    "the page's logs": lambda file: LogTail(file.parents[1], 0, 10).look(ended=True),
    "the page's curve": _sampled_losses,
    "figures": lambda file: RunFeed(file.parent, 1, 0, JobStats(job="j", name="n", attempt=1)).look_for_rows(),
}


async def _all_logs(folder: Path, *, tail: int) -> None:
    async for _ in log_lines(folder, _entry(ended=True), worker=None, follow=False, tail=tail):
        pass


@pytest.mark.parametrize("what", READERS)
def test_no_reader_waits_at_a_fifo(tmp_path: Path, what: str) -> None:
    (tmp_path / "logs").mkdir()
    _replace(tmp_path / "logs" / "worker-0.log", "fifo")
    with pytest.raises(OSError, match="is a fifo, must be a regular file"):
        READERS[what](tmp_path / "logs" / "worker-0.log")


@pytest.mark.parametrize("what", SILENT)
@pytest.mark.parametrize("name", ["worker-0.log", "accounts.jsonl", "timeline.json"])
def test_pages_do_without_what_is_a_fifo(tmp_path: Path, what: str, name: str) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    _replace(folder / name, "fifo")
    (folder / "metrics.jsonl").write_text('{"kind": "eval", "step": 1, "loss": 1.0}\n')
    SILENT[what](folder / name)


def test_an_attempt_is_put_aside_only_if_its_log_is_a_file(tmp_path: Path) -> None:
    _replace(tmp_path / "events.jsonl", "fifo")
    with pytest.raises(OSError, match="is a fifo"):
        retire_attempt(tmp_path, 1)


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_a_request_for_a_trace_that_is_no_file_is_dropped(tmp_path: Path, kind: str) -> None:
    """A running job looks for one at each step."""
    run_dir = RunDir.create(tmp_path / "run", digits_job())
    _replace(tmp_path / "run" / "trace.request", kind)
    assert run_dir.trace_request() is None
    run_dir.close()


def _rows(n: int) -> list[bytes]:
    step = StepRow(1, 1, 16, 0.5, 0.01, 1.0, 0.1, 0.2, 0.9)
    rows = [{**step.as_dict(), "step": k, "loss": k / 2} for k in range(1, n + 1)]
    return [json.dumps(row).encode() + b"\n" for row in (*rows, EvalRow(n, 1, 0.5, 0.9, 10).as_dict())]


NO_ROWS = (
    b"{}\n", b"[]\n", b"1\n", b'{"kind": "step"}\n', b'{"kind": "step", "step": 3}\n', b"\xff\n", b"\0" * 9 + b"\n",
    b'{"kind": "step", "step": "3", "loss": 1}\n', b'{"kind": "eval", "step": 3, "loss": null}\n', b'{"kind": []}\n',
    b'{"kind": "step", "step": 3, "loss": 1.0, "more": 1}\n', b'{"kind": "step", "step": 3, "loss": 1.0}\n',
)  # fmt: skip


def test_rows_that_are_none_are_left_out_and_the_others_are_told(tmp_path: Path) -> None:
    async def play() -> None:
        async with scripted(tmp_path / "home") as service:
            await _trains(service, "job1")
            good = _rows(3)
            content = b"".join(line for line in good for line in (*NO_ROWS, line))
            (service.home.run_directory("job1") / "metrics.jsonl").write_bytes(content)
            await service.until(lambda: service.jobs.record("job1").step == 3)
            assert service.reason("job1") == ""
            service.writes("finished", "job1", step=3)
            await service.until(lambda: service.state("job1") == "SUCCEEDED")
            updates = Watcher(service.jobs, "job1", pb.WatchRequest(id="job1")).updates()
            told = [pb.WatchUpdate.FromString(update) async for update in updates]
            rows = [row for update in told for row in update.rows]
            assert [row.step.loss for row in rows if row.HasField("step") and row.step.samples] == [0.5, 1.0, 1.5]
            assert sum(row.HasField("eval") for row in rows) == 1

    asyncio.run(play())


def test_events_that_are_no_events_are_left_out(tmp_path: Path) -> None:
    deep = b"[" * 200_000 + b"\n"  # deeper than the parser can read
    events = [b"\xff\n", b"{\n", deep, b"[]\n", b'{"event": "note", "attempt": 1}\n']
    (tmp_path / "events.jsonl").write_bytes(b"".join(events))
    assert [event.content["event"] for event in RunFeed(tmp_path, 1, 0).new_events()] == ["note"]


def test_bytes_that_were_changed_anywhere_end_no_reader(tmp_path: Path) -> None:
    account = {"step": 1, "ended": 1.0, "wall_us": [9], "stage_us": [[1] * 9], "worker_us": [[1] * 5], "links": [],
               "bubble": [0.5], "predicted": [0.4]}  # fmt: skip
    files = {
        "metrics.jsonl": b"".join(_rows(5)),
        "events.jsonl": b'{"event": "note", "attempt": 1, "detail": "x"}\n' * 3,
        "accounts.jsonl": json.dumps(account).encode() + b"\n",
        "timeline.json": json.dumps({"attempt": 1, "memory": [], "workers": [{"worker": 0}]}).encode(),
    }
    chance = random.Random(1)
    record = _entry(ended=True).record
    for _ in range(300):
        for name, content in files.items():
            damaged = bytearray(content)
            for _ in range(chance.choice([0, 1, 3])):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            (tmp_path / name).write_bytes(damaged)
        stats = JobStats(job="job1", name="n", attempt=1)
        feed = RunFeed(tmp_path, 1, 0, stats)
        feed.look_for_rows()
        feed.new_events()
        assert 'pipetrain_job_info{job="a-job"' in job_text([job_facts(record, stats)], openmetrics=False)
