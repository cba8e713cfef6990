"""A fake of the part of Ray's interface that `RayAgent` uses: actors by name, and pings that the test answers.

As in Ray: `get_actor` raises ValueError for an unknown name; `remote` returns a reference at once; `wait` returns the
ready references; `get` returns the answer, or raises the RayError of a dead actor; the name of a killed actor is free.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

NODE_ID = "a1" * 28
"""An id as long as those of Ray's nodes."""


class RayError(Exception):
    """The base class of the errors that `get` raises."""


class Ref:
    """The answer to a call; `answer` may be an error."""

    def __init__(self, there: threading.Condition) -> None:
        self._there = there
        self.ready, self.answer = False, None

    def resolve(self, answer: Any) -> None:
        with self._there:
            self.ready, self.answer = True, answer
            self._there.notify_all()


class Actor:
    """A runner. `calls` has the calls that it got, `pings` the references that it has not answered, oldest first."""

    def __init__(self, there: threading.Condition, options: dict[str, Any], arguments: tuple[Any, ...]) -> None:
        self.options, self.arguments = options, arguments
        self.calls: list[str] = []
        self.pings: list[Ref] = []
        self._there = there
        self.run, self.stop, self.ping = (SimpleNamespace(remote=self._call(name)) for name in ("run", "stop", "ping"))

    def _call(self, name: str) -> Callable[..., Ref]:
        def call(*arguments: Any) -> Ref:
            ref = Ref(self._there)
            with self._there:
                self.calls.append(name)
                if name == "ping":
                    self.pings.append(ref)
                self._there.notify_all()
            return ref

        return call

    def answer(self, answer: Any) -> None:
        """Wait for a ping, and answer the oldest one."""
        with self._there:
            assert self._there.wait_for(lambda: bool(self.pings), 30), "no ping came"
            ref = self.pings.pop(0)
        ref.resolve(answer)


class FakeRay:
    """The fake of the module `ray`."""

    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self) -> None:
        self.there = threading.Condition()
        self.actors: dict[str, Actor] = {}
        self.killed: list[Actor] = []
        self.refusal: Exception | None = None
        self.node: dict[str, Any] = {
            "NodeID": NODE_ID, "Alive": True, "NodeManagerHostname": "vm", "NodeManagerAddress": "127.0.0.1",
            "Resources": {"CPU": 4.0, "memory": 1000.0},
        }  # fmt: skip
        self.folder = "/"
        self.free = {NODE_ID: {"CPU": 3.0, "memory": 600.0}}
        node = SimpleNamespace(session_name="session_1", get_session_dir_path=lambda: self.folder)
        worker = SimpleNamespace(global_worker=SimpleNamespace(node=node))
        self._private = SimpleNamespace(worker=worker)

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: NODE_ID)

    def nodes(self) -> list[dict[str, Any]]:
        return [self.node, {**self.node, "NodeID": NODE_ID[::-1], "Alive": False}]

    def method(self, **_: Any) -> Callable[[Any], Any]:
        return lambda function: function

    def remote(self, **_: Any) -> Callable[[type], Any]:
        return lambda kind: SimpleNamespace(options=lambda **options: SimpleNamespace(remote=self._maker(options)))

    def _maker(self, options: dict[str, Any]) -> Callable[..., Actor]:
        def make(*arguments: Any) -> Actor:
            if self.refusal is not None:
                raise self.refusal
            assert options["name"] not in self.actors, "Ray allows an actor's name only once"
            return self.actors.setdefault(options["name"], Actor(self.there, options, arguments))

        return make

    def get_actor(self, name: str, namespace: str) -> Actor:
        assert namespace == "pipetrain"
        if name not in self.actors:
            raise ValueError(f"Failed to look up actor with name '{name}'")
        return self.actors[name]

    def kill(self, handle: Actor, no_restart: bool) -> None:
        assert no_restart
        self.killed.append(self.actors.pop(handle.options["name"]))

    def wait(self, refs: Sequence[Ref], num_returns: int, timeout: float) -> tuple[list[Ref], list[Ref]]:
        with self.there:
            self.there.wait_for(lambda: any(ref.ready for ref in refs), timeout)
            ready = [ref for ref in refs if ref.ready][:num_returns]
        return ready, [ref for ref in refs if ref not in ready]

    def get(self, ref: Ref) -> Any:
        if isinstance(ref.answer, Exception):
            raise ref.answer
        return ref.answer
