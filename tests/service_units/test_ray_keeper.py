"""The keeper of Ray, with an agent and a head played by the test, and jobs that only record their calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cluster.service import ray_keeper
from stages.errors import NotEnoughResources
from tests.service_units.scripted_keeper import NODES, Head, Scene

Script = Callable[[Scene], Coroutine[Any, Any, None]]
Play = Callable[..., None]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Perform a script while a keeper runs."""
    monkeypatch.setattr(ray_keeper, "RayHead", Head)
    monkeypatch.setattr(ray_keeper, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(ray_keeper, "_AGAIN_S", 0.01)
    monkeypatch.setattr(ray_keeper, "_PAUSE_S", (0.01,))
    Head.left, Head.started, Head.refusals = None, [], []

    def perform(script: Script, address: str | None = None, *, log_in_the_way: bool = False) -> None:
        async def within() -> None:
            made = Scene(tmp_path / "home", address)
            if log_in_the_way:
                (made.home.logs / "ray-agent.log").mkdir()
            monkeypatch.setattr(asyncio, "create_subprocess_exec", made.start_agent)
            keeping = asyncio.create_task(made.keeper.keep(made.jobs))  # type: ignore[arg-type]
            try:
                await script(made)
            finally:
                keeping.cancel()
                with suppress(asyncio.CancelledError):
                    await keeping

        asyncio.run(within())

    return perform


def test_an_agent_that_does_not_answer_is_replaced(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that is stopped (SIGSTOP), for example: without another one, no job could be stopped."""
    monkeypatch.setattr(ray_keeper, "_PING_EVERY_S", 0.01)
    monkeypatch.setattr(ray_keeper, "_SILENT_S", 0.05)

    async def script(made: Scene) -> None:
        first = await made.agent()
        first.ready()
        await made.until_heard("connected")
        await made.until(lambda: first.killed)
        (await made.agent(1)).ready()
        await made.until(lambda: made.jobs.heard.count(("connected",)) == 2)

    play(script)


def test_ray_is_started_and_its_runners_are_found_again_once_the_agent_is_in(play: Play) -> None:
    async def script(made: Scene) -> None:
        agent = await made.agent()
        assert (made.keeper.state, made.keeper.up.is_set()) == ("starting", False)
        made.keeper.send({"do": "launch", "job": "a", "attempt": 1})
        assert json.loads(agent.written) == {"do": "launch", "job": "a", "attempt": 1}
        agent.ready()
        await made.keeper.up.wait()
        await made.until_heard("connected")
        assert made.keeper.state == "up"
        assert made.keeper.ray_address == "127.0.0.1:1"
        assert "--loopback" in agent.command
        assert agent.environment["RAY_AUTH_TOKEN"] == "of-the-head"
        # jobs of a previous Ray are lost; that is reported before their runners are looked for
        assert made.jobs.heard == [
            ("lost", "Ray ended while no service was up"), ("cluster", NODES), ("connected",),
        ]  # fmt: skip

    play(script)


def test_a_head_that_lives_is_joined_again_and_nobody_is_lost(play: Play) -> None:
    Head.left = Head()

    async def script(made: Scene) -> None:
        (await made.agent()).ready()
        await made.until_heard("connected")
        assert Head.started == []
        assert made.jobs.heard == [("cluster", NODES), ("connected",)]

    play(script)


def test_when_ray_dies_all_is_lost_once_and_another_is_started(play: Play) -> None:
    async def script(made: Scene) -> None:
        first = await made.agent()
        first.ready()
        await made.until_heard("connected")
        Head.started[0].lives = False
        (await made.agent(1)).ready()
        await made.until(lambda: made.jobs.heard.count(("connected",)) == 2)
        assert first.killed, "the agent may not have noticed"
        assert Head.started[0].ended
        assert len(Head.started) == 2
        assert made.jobs.heard[3:] == [
            ("cluster", []), ("lost", "Ray was lost: one of its processes died"), ("cluster", NODES), ("connected",),
        ]  # fmt: skip

    play(script)


def test_when_only_the_agent_dies_the_runners_are_not_lost(play: Play) -> None:
    async def script(made: Scene) -> None:
        first = await made.agent()
        first.ready()
        await made.until_heard("connected")
        first.stdout.feed_eof()
        second = await made.agent(1)
        second.ready()
        await made.until(lambda: made.jobs.heard.count(("connected",)) == 2)
        assert len(Head.started) == 1
        assert [told for told in made.jobs.heard[3:] if told[0] == "lost"] == []

    play(script)


def test_a_ray_that_cannot_start_at_all_is_the_service_s_failure(play: Play) -> None:
    Head.refusals = [NotEnoughResources("no room")]

    async def script(made: Scene) -> None:
        await made.keeper.up.wait()
        assert str(made.keeper.failed) == "no room"
        assert made.agents == []

    play(script)


def test_a_ray_that_cannot_start_again_is_tried_until_it_can_and_the_state_says_why(play: Play) -> None:
    async def script(made: Scene) -> None:
        (await made.agent()).ready()
        await made.until_heard("connected")
        Head.refusals = [NotEnoughResources("no room")] * 200
        Head.started[0].lives = False
        await made.until(lambda: made.keeper.state == "not connected: no room")
        assert made.keeper.failed is None
        Head.refusals.clear()
        (await made.agent(1)).ready()
        await made.until(lambda: made.keeper.state == "up")

    play(script)


def test_an_agent_that_is_not_taken_in_says_so(play: Play) -> None:
    async def script(made: Scene) -> None:
        (await made.agent()).tells("refused", cause="wrong token")
        await made.until(lambda: "wrong token" in made.keeper.state)
        assert made.jobs.heard[-1] == ("cluster", [])
        (await made.agent(1)).ready()
        await made.until(lambda: made.keeper.state == "up")

    play(script, address="head:6379")


def test_a_joined_cluster_that_was_started_anew_has_lost_all_runners(play: Play) -> None:
    async def script(made: Scene) -> None:
        (await made.agent()).ready("s1")
        await made.until_heard("connected")
        assert "--loopback" not in made.agents[0].command
        assert made.jobs.heard == [("cluster", NODES), ("connected",)]
        made.agents[0].stdout.feed_eof()
        (await made.agent(1)).ready("s1")
        await made.until(lambda: made.jobs.heard.count(("connected",)) == 2)
        assert not [told for told in made.jobs.heard if told[0] == "lost"]
        made.agents[1].stdout.feed_eof()
        (await made.agent(2)).ready("s2")
        await made.until(lambda: made.jobs.heard.count(("connected",)) == 3)
        lost = made.jobs.heard.index(("lost", "the Ray cluster was restarted"))
        assert made.jobs.heard[lost:] == [
            ("lost", "the Ray cluster was restarted"),
            ("cluster", NODES),
            ("connected",),
        ]

    play(script, address="head:6379")


@pytest.mark.parametrize(
    ("event", "details", "heard"),
    [
        ("cluster", {"nodes": []}, ("cluster", [])),
        ("ended", {"job": "a", "attempt": 2}, ("gone", "a", 2, "its runner ended without reporting how")),
        ("absent", {"job": "a", "attempt": 2}, ("gone", "a", 2, "its runner is gone")),
        ("lost", {"job": "a", "attempt": 2, "cause": "killed"}, ("gone", "a", 2, "killed")),
        (
            "refused",
            {"job": "a", "attempt": 2, "cause": "no room"},
            ("gone", "a", 2, "Ray did not start its runner: no room", "not again"),
        ),
        ("silent", {"job": "a", "attempt": 2, "seconds": 30}, ("silent", "a", 2, 30)),
    ],
)
def test_what_the_agent_tells_reaches_the_jobs(play: Play, event: str, details: Any, heard: tuple[Any, ...]) -> None:
    async def script(made: Scene) -> None:
        agent = await made.agent()
        agent.ready()
        agent.tells(event, **details)
        await made.until_heard(*heard)

    play(script)


def test_an_end_that_could_not_be_noted_is_told_again_until_it_is(play: Play) -> None:
    async def script(made: Scene) -> None:
        agent = await made.agent()
        agent.ready()
        await made.until_heard("connected")
        made.jobs.failures = [OSError(28, "No space left on device")] * 5
        agent.tells("lost", job="a", attempt=1, cause="killed")
        agent.tells("silent", job="b", attempt=1, seconds=30)
        await made.until_heard("gone", "a", 1, "killed")
        assert made.jobs.failures == []
        assert made.jobs.heard.count(("gone", "a", 1, "killed")) == 1
        assert ("silent", "b", 1, 30) in made.jobs.heard, "events of other runners are handled meanwhile"

    play(script)


def test_a_broken_event_does_not_end_the_connection(play: Play) -> None:
    async def script(made: Scene) -> None:
        agent = await made.agent()
        agent.ready()
        agent.stdout.feed_data(b'{"event": "lost"}\nno json\n')
        agent.tells("absent", job="a", attempt=1)
        await made.until_heard("gone", "a", 1, "its runner is gone")
        assert len(made.agents) == 1

    play(script)


def test_runners_in_a_ray_that_goes_on_are_ended_and_waited_for(play: Play) -> None:
    async def script(made: Scene) -> None:
        agent = await made.agent()
        agent.ready()
        await made.until_heard("connected")
        made.jobs.closing = True
        ending = asyncio.create_task(made.keeper.end_runners(made.jobs.active()))
        await made.until(lambda: agent.written.count(b"\n") == 2)
        asked = sorted(
            (told["job"], told["do"], told["attempt"]) for told in map(json.loads, agent.written.splitlines())
        )
        assert asked == [("a", "end", 1), ("b", "end", 3)]
        agent.tells("lost", job="a", attempt=1, cause="its runner was ended")
        await made.until_heard("gone", "a", 1, "its runner was ended")
        assert not ending.done()
        agent.tells("lost", job="b", attempt=3, cause="its runner was ended")
        await asyncio.wait_for(ending, 9)

    play(script, address="head:6379")


def test_the_end_ends_the_agent_and_our_own_ray(play: Play) -> None:
    async def script(made: Scene) -> None:
        agent = await made.agent()
        agent.ready()
        await made.until_heard("connected")
        await made.keeper.end()
        assert agent.killed
        assert Head.started[0].ended

    play(script)


def test_the_end_ends_our_own_ray_though_its_note_is_gone(play: Play) -> None:
    """ray.json is gone with a home that was moved or deleted while its service was up."""

    async def script(made: Scene) -> None:
        (await made.agent()).ready()
        await made.until_heard("connected")
        Head.left = None
        await made.keeper.end()
        assert Head.started[0].ended

    play(script)


def test_a_ray_that_does_not_answer_is_asked_again_and_said_to_be(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its GCS server may be stopped, for example. Jobs go on without it, so the service does not end them."""
    monkeypatch.setattr(ray_keeper, "_CONNECT_S", 0.05)

    async def script(made: Scene) -> None:
        await made.agent(2)
        assert made.keeper.state.startswith(
            "not connected: Ray at 127.0.0.1:1 did not answer within 0.05 s; the service tries again"
        )
        assert made.keeper.failed is None
        assert not Head.started[0].ended
        monkeypatch.setattr(ray_keeper, "_CONNECT_S", 30)
        (await made.agent(3)).ready()
        await made.until(lambda: made.keeper.state == "up")

    play(script)


def test_an_agent_for_which_there_is_no_room_is_told_at_once(play: Play) -> None:
    """The service once did not report why it never came up."""
    Head.left = Head()

    async def script(made: Scene) -> None:
        await made.keeper.up.wait()
        assert str(made.keeper.failed).startswith("its agent cannot be started: is a directory: ")
        assert str(made.keeper.failed).endswith("ray-agent.log")

    play(script, log_in_the_way=True)


def test_an_agent_that_cannot_be_started_again_is_tried_until_it_can_and_the_state_says_why(play: Play) -> None:
    async def script(made: Scene) -> None:
        first = await made.agent()
        first.ready()
        await made.until_heard("connected")
        log = made.home.logs / "ray-agent.log"
        log.unlink()
        log.mkdir()
        first.stdout.feed_eof()
        await made.until(
            lambda: made.keeper.state.startswith("not connected: its agent cannot be started: is a directory")
        )
        log.rmdir()
        (await made.agent(1)).ready()
        await made.until(lambda: made.keeper.state == "up")

    play(script)
