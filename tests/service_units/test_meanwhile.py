"""Changes of a job during other work with it: it is deleted while it is sent, or stopped while others start."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from cluster.service.api import Api
from cluster.service.entry import Entry
from cluster.service.files import log_lines
from cluster.service.job_ids import find_id
from coordinator.queue.happenings import Admitted
from stages.errors import Refused, UnknownJob
from tests.service_units.scripted import Scripted, scripted

NOBODY: Any = None


def test_a_job_that_is_deleted_while_it_is_fetched_was_deleted(tmp_path: Path) -> None:
    """The error was once "a bug in the service: FileNotFoundError", with a traceback in the log."""

    async def fetch(service: Scripted, files: list[Path]) -> int:
        api = Api(service.jobs, NOBODY, NOBODY, NOBODY)
        return len([chunk async for chunk in api._chunks("job1", files)])

    async def scenario() -> None:
        async with scripted(tmp_path / "home") as service:
            await service.submit()
            service.writes("preparing")
            there = service.home.run_directory("job1") / "events.jsonl"
            gone = there.with_name("timeline.json")
            assert await fetch(service, [there]) == 1
            with pytest.raises(Refused, match=r"job job1: timeline\.json was moved while the files were sent"):
                await fetch(service, [there, gone])
            await service.jobs.stop("job1", now=True)
            await service.jobs.runner_gone("job1", 1, "it was ended")
            await service.jobs.delete("job1")
            with pytest.raises(UnknownJob, match="job job1 was deleted"):
                await fetch(service, [gone])

    asyncio.run(scenario())


def test_a_log_that_is_deleted_while_it_is_read_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(ended: bool) -> list[Any]:
        async with scripted(tmp_path / f"home-{ended}") as service:
            await service.submit()
            entry = service.jobs.entries.get("job1") or Entry(service.jobs.record("job1"))
            if ended:
                await service.jobs.stop("job1", now=True)
                await service.jobs.runner_gone("job1", 1, "it was ended")
            folder = tmp_path / "runs"
            monkeypatch.setattr("cluster.service.files._log_files", lambda *_: [(0, folder / "worker-0.log")])
            return [line async for line in log_lines(folder, entry, worker=None, follow=False, tail=5)]

    assert asyncio.run(scenario(False)) == []
    assert asyncio.run(scenario(True)) == []


def test_a_job_that_is_stopped_while_another_starts_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)

    async def scenario() -> None:
        async with scripted(tmp_path / "home") as service:
            apply = service.jobs.noting.apply
            service.jobs.cluster_is([])

            async def stop_the_other(entry: Any, happening: Any, *rest: Any, **more: Any) -> None:
                if isinstance(happening, Admitted) and entry.record.id == "job1":
                    await service.jobs.stop("job2", now=True)
                await apply(entry, happening, *rest, **more)

            monkeypatch.setattr(service.jobs.noting, "apply", stop_the_other)
            await service.submit("job1")
            await service.submit("job2")
            service.jobs.cluster_is([{"id": "n", "cpus": 4.0, "memory": 2**32}])  # room for both jobs
            await service.until(lambda: service.state("job1") == "STARTING")
            await service.until(lambda: service.state("job2") == "STOPPED")
            await service.submit("job3")
            await service.until(lambda: service.state("job3") == "STARTING")
            assert [sent["job"] for sent in service.sent if sent["do"] == "launch"] == ["job1", "job3"]

    asyncio.run(scenario())
    assert caplog.messages == []


def test_a_job_is_looked_for_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding the nearest of thousands of long, similar names takes seconds."""
    threads: list[str] = []

    def recorded(*given: Any) -> str:
        threads.append(threading.current_thread().name)
        return find_id(*given)

    monkeypatch.setattr("cluster.service.jobs.find_id", recorded)

    async def scenario() -> None:
        async with scripted(tmp_path / "home") as service:
            await service.submit()
            assert await service.jobs.find("job1") == "job1"
            assert threads == []
            assert await service.jobs.find("jo") == "job1"

    asyncio.run(scenario())
    assert threads
    assert threading.main_thread().name not in threads
