"""A store that cannot be written now makes the service wait; an event that can never be stored fails its job."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.service.refusals import NoSpace, StoreUnwritable
from coordinator.queue.job_states import Failed
from tests.service_units.scripted import Scripted, scripted
from tests.small_disk import fill, small_disk

FULL = sqlite3.OperationalError("database or disk is full")


class Broken:
    """Makes each write of a service's store fail with `error`, unless that is None."""

    def __init__(self, service: Scripted) -> None:
        self.error: Exception | None = None
        self.refused = 0
        write = service.store.write

        async def perhaps(change: Any) -> Any:
            if self.error is not None:
                self.refused += 1
                raise self.error
            return await write(change)

        service.store.write = perhaps  # type: ignore[method-assign]


def run(folder: Path, scenario: Callable[[Scripted, Broken], Any]) -> None:
    """Perform a scenario."""

    async def play() -> None:
        async with scripted(folder) as service:
            await scenario(service, Broken(service))

    asyncio.run(play())


async def started(service: Scripted) -> None:
    """Submit a job, and wait until it trains."""
    await service.submit()
    await service.until(lambda: service.state() == "STARTING")
    service.writes("started", workers=[])
    await service.until(lambda: service.state() == "RUNNING")


def test_the_queue_goes_on_by_itself_after_a_write_that_failed(tmp_path: Path) -> None:
    async def scenario(service: Scripted, broken: Broken) -> None:
        service.jobs.cluster_is([])
        await service.submit()
        broken.error = FULL
        service.jobs.cluster_is([{"id": "n", "cpus": 4.0, "memory": 2**32}])
        await service.until(lambda: broken.refused > 0)
        await service.until(lambda: "cannot be noted yet: no space left on device" in service.reason(), service.reason)
        assert service.state() == "QUEUED"
        broken.error = None  # no further call or event comes
        await service.until(lambda: service.state() == "STARTING")
        assert [command["do"] for command in service.sent] == ["launch"]

    run(tmp_path / "home", scenario)


def test_an_end_that_cannot_be_noted_is_told_at_once_and_noted_when_it_can_be(tmp_path: Path) -> None:
    async def scenario(service: Scripted, broken: Broken) -> None:
        await started(service)
        broken.error = FULL
        service.writes("finished", step=30)
        await service.until(lambda: "that cannot be noted yet: no space left on device" in service.reason())
        assert service.reason().startswith("all 30 steps made, model saved; ")
        broken.error = None
        await service.until(lambda: service.state() == "SUCCEEDED")
        assert service.reason() == ""

    run(tmp_path / "home", scenario)


def test_submit_says_that_there_is_no_space_and_nothing_is_taken_in(tmp_path: Path) -> None:
    async def scenario(service: Scripted, broken: Broken) -> None:
        broken.error = FULL
        with pytest.raises(NoSpace, match=r"^no space left on device: .*jobs.sqlite3 cannot be written"):
            await service.submit()
        broken.error = sqlite3.OperationalError("attempt to write a readonly database")
        with pytest.raises(StoreUnwritable, match=r"jobs.sqlite3 cannot be written: attempt to write a readonly"):
            await service.submit()
        broken.error = None
        await service.submit()
        await service.until(lambda: service.state() == "STARTING")

    run(tmp_path / "home", scenario)


def test_the_loss_of_ray_is_noted_when_there_is_room_and_the_job_comes_again(tmp_path: Path) -> None:
    async def scenario(service: Scripted, broken: Broken) -> None:
        await started(service)
        broken.error = FULL
        loss = asyncio.create_task(service.jobs.cluster_lost("Ray was lost"))
        await service.until(lambda: broken.refused > 0)
        broken.error = None
        await loss
        await service.until(lambda: service.jobs.record("job1").attempt == 2)

    run(tmp_path / "home", scenario)


UNSTORABLE: dict[str, dict[str, Any]] = {
    "a lone surrogate": {"event": "note", "detail": "\ud800.csv"},
    "a number that is too large": {"event": "starting", "workers": 1, "stages": 1, "schedule": "s", "micro_batches": 1,
                                   "steps_total": 2**80},
    "an entry that is missing": {"event": "starting"},
    "an entry of another kind": {"event": "stopped", "step": "x", "saved": True},
}  # fmt: skip


@pytest.mark.parametrize("what", UNSTORABLE)
def test_an_event_that_can_never_be_stored_ends_its_job_and_no_other(tmp_path: Path, what: str) -> None:
    async def scenario(service: Scripted, broken: Broken) -> None:
        await started(service)
        await service.submit("job2")
        service.writes(**UNSTORABLE[what])
        await service.until(lambda: service.state() == "FAILED", service.reason)
        failed = service.jobs.record("job1").state
        assert isinstance(failed, Failed)
        assert failed.kind == "Unstorable"
        assert failed.cause.startswith(f"cannot be stored: {UNSTORABLE[what]['event']}: ")
        failed.cause.encode()
        ended = [command for command in service.sent if command["do"] == "end"]
        assert [(command["job"], command["attempt"]) for command in ended] == [("job1", 1)]
        stored = service.store.get("job1")
        assert stored is not None
        assert stored.state == failed
        assert service.store.events("job1")[-1].kind == "failed"
        assert service.state("job2") == "STARTING"

    run(tmp_path / "home", scenario)


def test_a_job_of_which_not_even_the_end_can_be_stored_ends_all_the_same(tmp_path: Path) -> None:
    async def scenario(service: Scripted, broken: Broken) -> None:
        await started(service)
        broken.error = OverflowError("Python int too large to convert to SQLite INTEGER")
        service.writes("note", detail="anything")
        await service.until(lambda: "job1" not in service.jobs.entries)
        refused = broken.refused
        await asyncio.sleep(0.5)  # several rounds of the following loop
        assert broken.refused == refused, "the service does not try it for ever"
        assert [command["do"] for command in service.sent] == ["launch", "end"]

    run(tmp_path / "home", scenario)


def test_how_a_runner_ended_counts_though_its_run_directory_is_gone(tmp_path: Path) -> None:
    async def scenario(service: Scripted, broken: Broken) -> None:
        await started(service)
        (service.home.run_directory("job1") / "events.jsonl").unlink()
        ending = {"event": "failed", "attempt": 1, "kind": "HostFailed", "mistake": False,
                  "cause": "the run directory was deleted", "traceback": ""}  # fmt: skip
        await service.jobs.runner_gone("job1", 1, "its runner ended without reporting how", ending)
        failed = service.jobs.record("job1").state
        assert failed == Failed(attempt=1, cause="the run directory was deleted", kind="HostFailed")

    run(tmp_path / "home", scenario)


async def _submit_many(service: Scripted) -> None:
    """Submit jobs until the store's write-ahead log has no room left."""
    for number in range(200):
        await service.submit(f"more{number}")


def test_a_device_that_is_really_full(tmp_path: Path) -> None:
    async def play(home: Path) -> None:
        async with scripted(home) as service:
            service.jobs.max_queued = 1000
            await service.submit()
            await service.until(lambda: service.state() == "STARTING")
            service.writes("started", workers=[])
            await service.until(lambda: service.state() == "RUNNING")
            filler = fill(home)
            with pytest.raises(NoSpace, match=r"^no space left on device"):
                await _submit_many(service)
            await service.until(lambda: service.reason().startswith("no space left on device"), service.reason)
            filler.unlink()
            await service.until(lambda: service.reason() == "", service.reason)
            service.writes("finished", step=3)
            await service.until(lambda: service.state() == "SUCCEEDED", service.reason)

    with small_disk(tmp_path / "disk", "1m") as disk:
        asyncio.run(play(disk / "home"))


def test_a_job_that_is_stopped_while_its_launch_waits_for_room_hears_of_it(tmp_path: Path) -> None:
    async def scenario(service: Scripted, broken: Broken) -> None:
        room: list[bool] = []

        def send(command: Any) -> None:
            if command["do"] == "launch" and not room:
                raise OSError(28, "No space left on device", "/tmp/ray")
            service.sent.append(command)

        service.jobs._commands.send = send
        await service.submit()
        await service.until(lambda: service.reason().startswith("no space left on device: /tmp/ray"), service.reason)
        await service.jobs.stop("job1", False)
        room.append(True)
        await service.until(lambda: len(service.sent) >= 3)
        assert [command["do"] for command in service.sent] == ["stop", "launch", "stop"]

    run(tmp_path / "home", scenario)


def test_a_full_disk_takes_a_deletion_that_makes_room(tmp_path: Path) -> None:
    async def scenario(service: Scripted, broken: Broken) -> None:
        await started(service)
        service.writes("finished", step=30)
        await service.until(lambda: service.state() == "SUCCEEDED")
        folder = service.home.run_directory("job1")
        write = service.store.write

        async def full(change: Any) -> Any:
            if folder.exists():
                raise FULL
            return await write(change)

        service.store.write = full  # type: ignore[method-assign]
        await service.jobs.delete("job1")
        assert service.store.get("job1") is None

    run(tmp_path / "home", scenario)
