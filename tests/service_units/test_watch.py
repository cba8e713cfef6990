"""A watcher gets everything in order and once, from any cursor, and the final state last."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cluster.service.watch import Cursor, Watcher
from cluster.wire import pipetrain_pb2 as pb
from cluster.wire.convert import state_name
from stages.errors import UnknownJob, UserMistake
from tests.service_units.scripted_ray import BEGUN, Scene, play


class Watch:
    """The updates that one call of Watch got."""

    def __init__(self, made: Scene, job: str, **request: Any) -> None:
        self._watcher = Watcher(made.jobs, job, pb.WatchRequest(id=job, **request))
        self.updates: list[pb.WatchUpdate] = []
        self.task = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        async for update in self._watcher.updates():
            self.updates.append(pb.WatchUpdate.FromString(update))

    @property
    def events(self) -> list[str]:
        return [event.kind for update in self.updates for event in update.events]

    @property
    def losses(self) -> list[float]:
        """Return the losses of the rows. In these tests, all losses differ."""
        return [row.step.loss for update in self.updates for row in update.rows]

    @property
    def states(self) -> list[str]:
        """Return the states in order, each once."""
        told = [state_name(update.job.state) for update in self.updates if update.HasField("job")]
        return list(dict.fromkeys(told))


async def _whole_life(made: Scene) -> Watch:
    """Follow a job from its submission on, through two attempts of three and of ten steps."""
    await made.submit("a")
    watch = Watch(made, "a")
    await made.until(lambda: ("launch", 1) in made.commands("a"))
    made.runner("a").begins().makes_steps(0, 3)
    await made.until(lambda: len(watch.losses) == 3)
    await made.jobs.cluster_lost("Ray was lost")
    await made.until(lambda: ("launch", 2) in made.commands("a"))
    runner = made.runner("a", 2).begins().makes_steps(0, 4)
    await made.until(lambda: len(watch.losses) == 7)
    runner.makes_steps(4, 10).tells("finished", step=10)
    await asyncio.wait_for(watch.task, 30)
    return watch


LOSSES = [0.0, 1.0, 2.0, *map(float, range(10))]
EVENTS = [*BEGUN, "cluster lost", *BEGUN[1:], "finished"]


def test_one_who_follows_from_the_beginning_is_told_all_and_the_final_state_last_and_alone(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        watch = await _whole_life(made)
        assert watch.losses == LOSSES
        assert [row.attempt for update in watch.updates for row in update.rows] == [1] * 3 + [2] * 10
        assert watch.events == EVENTS
        assert watch.states[-1] == "SUCCEEDED"
        last = watch.updates[-1]
        assert (state_name(last.job.state), len(last.events), len(last.rows)) == ("SUCCEEDED", 0, 0)
        assert made.jobs.entries == {}

    play(tmp_path, script)


def test_a_watch_that_begins_at_any_cursor_goes_on_there(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        watch = await _whole_life(made)
        for place, update in enumerate(watch.updates):
            later = Watch(made, "a", cursor=update.cursor)
            await asyncio.wait_for(later.task, 30)
            rest = watch.updates[place + 1 :]
            assert later.losses == [row.step.loss for u in rest for row in u.rows], update.cursor
            assert later.events == [event.kind for u in rest for event in u.events], update.cursor
            assert later.states == ["SUCCEEDED"]

    play(tmp_path, script)


def test_what_there_is_now_what_comes_from_now_on_and_without_rows(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        runner = await made.run("a")
        runner.makes_steps(0, 5)
        await made.until(lambda: made.jobs.record("a").step == 5)
        so_far = Watch(made, "a", until_now=True)
        await asyncio.wait_for(so_far.task, 30)
        assert (so_far.losses, so_far.events) == ([0.0, 1.0, 2.0, 3.0, 4.0], BEGUN)
        from_now, plain = Watch(made, "a", from_now=True), Watch(made, "a", without_rows=True)
        await made.until(lambda: bool(from_now.updates and plain.updates))
        runner.makes_steps(5, 8).tells("stopped", step=8, saved=True)
        await asyncio.wait_for(asyncio.gather(from_now.task, plain.task), 30)
        assert (from_now.losses, from_now.events) == ([5.0, 6.0, 7.0], ["stopped"])
        assert (plain.losses, plain.events) == ([], [*BEGUN, "stopped"])
        assert from_now.states == plain.states == ["RUNNING", "STOPPED"]

    play(tmp_path, script)


def test_watchers_at_the_same_place_are_sent_the_same_bytes_and_who_goes_away_is_forgotten(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        runner = await made.run("a")
        watches = [Watch(made, "a") for _ in range(20)]
        await made.until(lambda: all(watch.updates for watch in watches))
        entry = made.jobs.entries["a"]
        assert entry.watchers == 20
        watches.pop().task.cancel()
        await made.until(lambda: entry.watchers == 19)
        runner.makes_steps(0, 10).tells("finished", step=10)
        await asyncio.wait_for(asyncio.gather(*(watch.task for watch in watches)), 30)
        for watch in watches:
            assert watch.losses == [float(step) for step in range(10)]
            assert watch.events == [*BEGUN, "finished"]
        assert entry.watchers == 0

    play(tmp_path, script)


def test_a_silent_job_is_told_of_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client can thus distinguish a quiet job from a lost connection."""
    monkeypatch.setattr("cluster.service.watch._AT_LEAST_EVERY_S", 0.01)

    async def script(made: Scene) -> None:
        await made.run("a")
        watch = Watch(made, "a")
        await made.until(lambda: len(watch.updates) > 5)
        assert watch.states == ["RUNNING"]
        assert watch.events == BEGUN
        watch.task.cancel()

    play(tmp_path, script)


@pytest.mark.parametrize("text", ["x", "1.2", "1.2.3.4", "-1.0.0", "1.0.0 ", "1.١.0", "9" * 30 + ".0.0"])
def test_what_is_no_cursor_is_a_mistake(text: str) -> None:
    with pytest.raises(UserMistake, match=r"^cursor: got "):
        Cursor.parse(text)


def test_a_cursor_is_read_back() -> None:
    assert Cursor.parse("") == Cursor()
    for cursor in (Cursor(), Cursor(attempt=3, rows=10**12, event=7)):
        assert Cursor.parse(str(cursor)) == cursor


def test_a_job_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        with pytest.raises(UnknownJob):
            Watch(made, "a")

    play(tmp_path, script)
