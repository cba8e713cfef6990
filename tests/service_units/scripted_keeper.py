"""A keeper of Ray with a scripted agent and head, and jobs that only record their calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cluster.service.home import Home
from cluster.service.ray_keeper import RayKeeper

NODES = [{"id": "n", "cpus": 2.0, "memory": 8}]


class NotedJobs:
    """A fake of Jobs that records its calls in order. The next calls of `runner_gone` raise `failures`."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.failures: list[Exception] = []
        self.closing = False

    def cluster_is(self, nodes: Any) -> None:
        self.heard.append(("cluster", list(nodes)))

    async def connected(self) -> None:
        self.heard.append(("connected",))

    async def cluster_lost(self, cause: str, *, planned: bool = False) -> None:
        self.heard.append(("lost", cause))

    async def runner_gone(self, job: str, attempt: int, cause: str, *, again: bool = True) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.heard.append(("gone", job, attempt, cause, *(() if again else ("not again",))))

    def runner_silent(self, job: str, attempt: int, seconds: int) -> None:
        self.heard.append(("silent", job, attempt, seconds))

    def active(self) -> list[Any]:
        return [SimpleNamespace(id="a", attempt=1), SimpleNamespace(id="b", attempt=3)]


class Agent:
    """A fake of the agent's process."""

    def __init__(self, command: tuple[str, ...], environment: dict[str, str]) -> None:
        self.command, self.environment = command, environment
        self.written = b""
        self.stdin = SimpleNamespace(is_closing=lambda: False, write=self._write)
        self.stdout = asyncio.StreamReader()
        self.killed = False

    def _write(self, line: bytes) -> None:
        self.written += line

    def tells(self, event: str, **details: Any) -> None:
        self.stdout.feed_data(json.dumps({"event": event, **details}).encode() + b"\n")

    def ready(self, session: str = "s1") -> None:
        self.tells("ready", node="n", session=session, nodes=NODES)

    def kill(self) -> None:
        if self.killed:
            raise ProcessLookupError
        self.killed = True
        self.stdout.feed_eof()

    async def wait(self) -> int:
        return -9


class Head:
    """A fake of RayHead. `left` is the head in ray.json; the next starts raise `refusals`."""

    left: Head | None
    started: list[Head]
    refusals: list[Exception]

    def __init__(self) -> None:
        self.address, self.token, self.lives, self.ended = "127.0.0.1:1", "of-the-head", True, False
        self.folder = "/"

    @classmethod
    def start(cls, home: Home, cpus: int) -> Head:
        if cls.refusals:
            raise cls.refusals.pop(0)
        cls.left = Head()
        cls.started.append(cls.left)
        return cls.left

    @classmethod
    def left_by_another(cls, home: Home) -> Head | None:
        return cls.left

    def alive(self) -> bool:
        return self.lives

    def end(self, home: Home) -> bool:
        self.lives, self.ended, Head.left = False, True, None
        return True


class Scene:
    """A running keeper."""

    def __init__(self, folder: Path, address: str | None) -> None:
        self.home, self.jobs, self.agents = Home(folder), NotedJobs(), list[Agent]()
        self.home.make()
        self.keeper = RayKeeper(self.home, cpus=2, address=address)

    async def start_agent(self, *command: str, env: dict[str, str], **_: Any) -> Agent:
        self.agents.append(Agent(command, env))
        return self.agents[-1]

    async def agent(self, number: int = 0) -> Agent:
        """Wait for the agent with this number, from 0, in the order of their starts."""
        await self.until(lambda: len(self.agents) > number)
        return self.agents[number]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.005)

    async def until_heard(self, *told: Any) -> None:
        await self.until(lambda: told in self.jobs.heard)
