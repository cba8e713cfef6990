"""The report of /healthz: what works now, found by trying it."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.service import health as module
from cluster.service.health import Health
from cluster.service.ray_head import RayHead
from cluster.service.ray_keeper import RayKeeper
from cluster.service.store import Store
from stages.errors import UserMistake
from tests.service_units.scripted import Scripted, scripted
from tests.small_disk import fill, small_disk


def run(folder: Path, scenario: Callable[[Scripted, RayKeeper, Health], Any]) -> None:
    """Perform a scenario with Ray reported as up."""

    async def play() -> None:
        async with scripted(folder) as service:
            keeper = RayKeeper(service.home, cpus=1, address=None)
            keeper.state = "up"
            keeper.send = lambda command: keeper._answered.set()  # type: ignore[method-assign]
            health = Health(service.jobs, keeper)
            beats = asyncio.create_task(health.keep())
            await scenario(service, keeper, health)
            beats.cancel()

    asyncio.run(play())


async def problems(health: Health, monkeypatch: pytest.MonkeyPatch | None = None) -> list[str]:
    """Return the problems that a new check finds."""
    health._looked_at = float("-inf")
    found = await health.look()
    assert found["ok"] == (not found["problems"])
    return list(found["problems"])


def test_all_is_well(tmp_path: Path) -> None:
    async def scenario(service: Scripted, keeper: RayKeeper, health: Health) -> None:
        assert await problems(health) == []
        found = await health.look()
        assert (found["ray"], found["queued"], found["active"]) == ("up", 0, 0)

    run(tmp_path / "home", scenario)


def test_ray_and_its_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGENT_S", 0.05)
    asked: list[Any] = []

    async def scenario(service: Scripted, keeper: RayKeeper, health: Health) -> None:
        keeper.send = asked.append  # type: ignore[method-assign, assignment]
        (told,) = await problems(health)
        assert told == "the Ray agent, which starts and stops jobs, did not answer within 0.05 s"
        assert asked == [{"do": "ping"}]
        keeper.state = "lost; looking for it"
        assert await problems(health) == ["Ray: lost; looking for it"]

    run(tmp_path / "home", scenario)


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    async def scenario(service: Scripted, keeper: RayKeeper, health: Health) -> None:
        async def full(change: Any) -> Any:
            raise sqlite3.OperationalError("database or disk is full")

        write, service.store.write = service.store.write, full  # type: ignore[method-assign]
        (told,) = await problems(health)
        assert told.startswith(f"no space left on device: {service.home.store}")
        service.store.write = write  # type: ignore[method-assign]
        assert await problems(health) == []

    run(tmp_path / "home", scenario)


@pytest.mark.parametrize("what", ["moved", "deleted"])
def test_a_home_that_was_taken_away(tmp_path: Path, what: str) -> None:
    async def scenario(service: Scripted, keeper: RayKeeper, health: Health) -> None:
        home = service.home.folder
        await service.submit()
        if what == "moved":
            home.rename(tmp_path / "elsewhere")
        else:
            shutil.rmtree(home)
        (told,) = await problems(health)
        assert told.startswith(f"{service.home.store} is not there any more: the home was moved or deleted")
        with pytest.raises(UserMistake, match="the home was moved or deleted while its service was up"):
            await service.submit("job2")
        await service.until(lambda: "moved or deleted" in service.reason(), service.reason)
        if what == "moved":
            (tmp_path / "elsewhere").rename(home)
            assert await problems(health) == []
            await service.submit("job2")

    run(tmp_path / "home", scenario)


def test_a_store_that_does_not_come_back_is_told_and_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.05)

    async def scenario(service: Scripted, keeper: RayKeeper, health: Health) -> None:
        held, asked = threading.Event(), 0
        loop = asyncio.get_running_loop()

        async def hangs(change: Any) -> None:
            nonlocal asked
            asked += 1
            await loop.run_in_executor(None, held.wait)

        service.store.write = hangs  # type: ignore[method-assign, assignment]
        for _ in range(3):
            (told,) = await problems(health)
            assert "neither store nor disk answered within" in told
        assert asked == 1, "a look that hangs must not take a thread each time"
        held.set()

    run(tmp_path / "home", scenario)


def test_a_loop_that_stood_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LATE_S", 0.2)

    async def scenario(service: Scripted, keeper: RayKeeper, health: Health) -> None:
        await asyncio.sleep(0)  # the first measurement has begun
        time.sleep(1.0)
        await asyncio.sleep(0.3)
        assert any("the event loop stood still for" in told for told in await problems(health))

    run(tmp_path / "home", scenario)


def test_a_full_device(tmp_path: Path) -> None:
    async def scenario(service: Scripted, keeper: RayKeeper, health: Health) -> None:
        filler = fill(service.home.folder)
        (told,) = await problems(health)
        assert told.startswith("no space left on device: ")
        filler.unlink()
        assert await problems(health) == []

    with small_disk(tmp_path / "disk", "1m") as disk:
        run(disk / "home", scenario)


def test_a_full_device_with_ray_s_files(tmp_path: Path) -> None:
    async def scenario(service: Scripted, keeper: RayKeeper, health: Health) -> None:
        keeper._head = RayHead(session=1, address="", token="", folder=str(disk), cpus=1)
        assert await problems(health) == []
        filler = fill(disk)
        assert await problems(health) == [
            f"no space left on device: {disk}, where Ray keeps its files; jobs start when there is room"
        ]
        filler.unlink()
        assert await problems(health) == []

    with small_disk(tmp_path / "disk") as disk:
        run(tmp_path / "home", scenario)


# the store's file ----------------------------------------------------------------------------------------------------


def test_a_damaged_store_is_one_sentence_with_its_path_and_what_can_be_done(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite3"
    file.write_bytes(b"this is no database" * 1000)
    with pytest.raises(UserMistake) as told:
        Store(file)
    (line,) = told.value.problems
    assert line.startswith(f"{file}: the job store is damaged (file is not a database); put a copy of it back, or move")


def test_a_job_whose_state_cannot_be_read_is_damage_too(tmp_path: Path) -> None:
    async def write() -> None:
        async with scripted(tmp_path / "home") as service:
            await service.submit()

    asyncio.run(write())
    file = tmp_path / "home" / "jobs.sqlite3"
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE jobs SET evidence = '{'")
    store = Store(file)
    with pytest.raises(UserMistake, match=r"jobs.sqlite3: the job store is damaged \(the state of job job1: "):
        store.unfinished()
    store.close()
