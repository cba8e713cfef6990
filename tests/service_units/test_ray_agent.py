"""The Ray agent with a fake Ray: its action for each command, and its reports about runners."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.run.job_runner import Assignment, runner_name
from cluster.service import ray_agent
from cluster.service.ray_agent import RayAgent
from tests.service_units.fake_ray import NODE_ID, Actor, FakeRay, RayError
from tests.small_disk import fill, small_disk

ASSIGNMENT = {"job": "a", "attempt": 1, "folder": "/runs/a", "document": {}, "files": {}, "memory_per_cpu": 7}


class _End(dict[str, Any]):
    """A command that ends the agent's thread."""

    def __getitem__(self, key: str) -> Any:
        raise EOFError


class Agent:
    """An agent that runs in a thread with a fake Ray."""

    def __init__(self, ray: FakeRay) -> None:
        self.ray = ray
        self._told: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self._commands: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        with contextlib.suppress(EOFError):
            RayAgent(self.ray, self._commands).serve()

    def begin(self) -> None:
        self._thread.start()

    def tell(self, event: str, **details: Any) -> None:
        self._told.put({"event": event, **details})

    def do(self, what: str, **details: Any) -> None:
        """Send a command about the first attempt of job a."""
        self._commands.put({"do": what, "job": "a", "attempt": 1, **details})

    def told(self) -> Mapping[str, Any]:
        """Return the next event other than `cluster`."""
        while (event := self._told.get(timeout=30))["event"] == "cluster":
            pass
        return event

    def tells_nothing_before(self, command: str) -> None:
        """Check that the agent has performed all earlier commands without an event: the answer to `command` is next."""
        self._commands.put({"do": command, "job": "marker", "attempt": 9})
        event = self.told()
        assert (event["event"], event["job"]) == ("absent", "marker"), event

    @property
    def runner(self) -> Actor:
        return self.ray.actors[runner_name("a", 1)]

    def launched(self) -> Actor:
        """Launch the attempt; return its runner."""
        self.do("launch", assignment=ASSIGNMENT)
        assert self.told() == {"event": "launched", "job": "a", "attempt": 1}
        return self.runner

    def end(self) -> None:
        self._commands.put(_End())
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    made = Agent(FakeRay())
    monkeypatch.setattr(ray_agent, "send_event", made.tell)
    monkeypatch.setattr("ray._private.state.available_resources_per_node", lambda: made.ray.free)
    made.begin()
    assert made.told() == {"event": "ready", "node": NODE_ID, "session": "session_1", "nodes": [NODE]}
    yield made
    made.end()


NODE = {
    "id": NODE_ID, "host": "vm", "address": "127.0.0.1", "cpus": 4.0, "cpus_used": 1.0, "memory": 1000,
    "memory_used": 400,
}  # fmt: skip


def test_a_launch_makes_a_runner_that_outlives_the_service_and_is_never_restarted(agent: Agent) -> None:
    runner = agent.launched()
    assert runner.arguments == (Assignment(**ASSIGNMENT),)  # type: ignore[arg-type]
    options = runner.options
    assert (options["lifetime"], options["max_restarts"], options["max_task_retries"]) == ("detached", 0, 0)
    assert options["num_cpus"] == 0, "the runner reserves no CPUs; its workers do"
    assert options["scheduling_strategy"].node_id == NODE_ID, "on the node with its run directory"
    assert runner.calls == ["run", "ping"]


def test_a_launch_that_is_given_again_finds_the_runner(agent: Agent) -> None:
    runner = agent.launched()
    assert agent.launched() is runner
    assert len(agent.ray.actors) == 1


def test_a_launch_that_ray_refuses_is_told_in_one_line(agent: Agent) -> None:
    agent.ray.refusal = RuntimeError("no\n  room\tleft")
    agent.do("launch", assignment=ASSIGNMENT)
    assert agent.told() == {"event": "refused", "job": "a", "attempt": 1, "cause": "no room left"}


def test_a_runner_is_pinged_until_it_says_that_its_attempt_has_ended_which_is_told_once(agent: Agent) -> None:
    runner = agent.launched()
    for _ in range(3):
        runner.answer(False)
    runner.answer(True)
    assert agent.told() == {"event": "ended", "job": "a", "attempt": 1}
    agent.tells_nothing_before("adopt")
    assert runner.pings == []


def test_how_the_attempt_ended_is_told_with_its_end(agent: Agent) -> None:
    ending = {"event": "failed", "attempt": 1, "cause": "no space left on device", "kind": "HostFailed"}
    agent.launched().answer(ending)
    assert agent.told() == {"event": "ended", "job": "a", "attempt": 1, "ending": ending}


def test_a_ping_is_answered(agent: Agent) -> None:
    agent.do("ping")
    assert agent.told() == {"event": "alive"}


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RayError("The actor died unexpectedly"), "its runner's process ended unexpectedly: killed from outside"),
        (RayError("… node was running low on memory …"), "ended by Ray because the host ran low on memory"),
    ],
)
def test_a_runner_that_died_is_told_once_with_the_cause(agent: Agent, error: Exception, cause: str) -> None:
    agent.launched().answer(error)
    event = agent.told()
    assert (event["event"], event["job"], event["attempt"]) == ("lost", "a", 1)
    assert cause in event["cause"]
    agent.tells_nothing_before("adopt")


def test_a_runner_that_died_for_lack_of_room_is_told_so(agent: Agent, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        agent.ray.folder = str(disk)
        fill(disk)
        agent.launched().answer(RayError("The actor died unexpectedly"))
        full = f"no space left on device: {disk}, where Ray keeps its files"
        assert agent.told()["cause"] == f"{full}; its runner's process ended unexpectedly"


def test_a_runner_that_is_found_again_is_looked_after_and_one_that_is_not_there_is_told(agent: Agent) -> None:
    agent.do("adopt")
    assert agent.told() == {"event": "absent", "job": "a", "attempt": 1}
    runner = Actor(agent.ray.there, {"name": runner_name("a", 1)}, ())
    agent.ray.actors[runner_name("a", 1)] = runner
    agent.do("adopt")
    runner.answer(True)
    assert agent.told() == {"event": "ended", "job": "a", "attempt": 1}


def test_stop_asks_the_runner_and_is_silent_where_there_is_none(agent: Agent) -> None:
    agent.do("stop")
    agent.tells_nothing_before("adopt")
    runner = agent.launched()
    agent.do("stop")
    agent.tells_nothing_before("adopt")
    assert "stop" in runner.calls
    assert agent.ray.killed == []


def test_end_and_forget_end_the_runner_and_only_end_tells_of_it(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[tuple[int, str]] = []
    monkeypatch.setattr(ray_agent, "end_ray_process", lambda pid, name: ended.append((pid, name)))
    for command, pid in (("end", 41), ("forget", 42), ("end", 43)):
        known = agent.launched() if pid != 43 else None  # in the last case the runner is gone already
        agent.do(command, pid=pid)
        if command == "end":
            assert agent.told() == {"event": "lost", "job": "a", "attempt": 1, "cause": "its runner was ended"}
        agent.tells_nothing_before("adopt")
        assert known is None or agent.ray.killed[-1] is known
    assert ended == [(41, "PipetrainRunner"), (42, "PipetrainRunner"), (43, "PipetrainRunner")]


def test_a_runner_that_does_not_answer_is_told_of_again_and_again_until_it_does(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_PING_S", "_SILENT_S"):
        monkeypatch.setattr(ray_agent, name, 0.05)
    began = time.monotonic()
    runner = agent.launched()
    for _ in range(3):
        event = agent.told()
        assert (event["event"], event["job"]) == ("silent", "a")
    assert time.monotonic() - began > 0.1
    runner.answer(False)
    while agent.told()["seconds"] != 0:  # events from before the answer
        pass


def test_the_cluster_is_told_when_it_changes(agent: Agent) -> None:
    agent.ray.free = {NODE_ID: {"CPU": 0.0, "memory": 600.0}}
    while (event := agent._told.get(timeout=30))["nodes"] == [NODE]:
        pass
    assert event == {"event": "cluster", "nodes": [{**NODE, "cpus_used": 4.0}]}


def test_an_event_is_a_line_of_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "out").open("wb") as file:
        monkeypatch.setattr(ray_agent, "_OUTPUT", file.fileno())
        ray_agent.send_event("lost", job="a", cause="two\nlines")
    assert (tmp_path / "out").read_text() == '{"event": "lost", "job": "a", "cause": "two\\nlines"}\n'
