"""A spare process takes the place of a lost worker if it can; else a new process is started."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.actors.spare import Spare


class _Call:
    def __init__(self, result: Any) -> None:
        self.result = result

    def remote(self, *_: Any) -> Any:
        return self.result


class _Ray:
    """Ray with actors whose calls are answered at once: `ready` is whether the process has started."""

    def __init__(self) -> None:
        self.ready, self.dead = True, False
        self.killed: list[Any] = []
        self.made: list[str] = []

    def make(self, node: str) -> Any:
        self.made.append(node)
        return SimpleNamespace(warm_up=_Call("warm"), become=_Call("became"))

    def wait(self, calls: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return (calls, []) if self.ready else ([], calls)

    def get(self, calls: list[Any], timeout: float) -> list[Any]:
        if self.dead:
            raise RuntimeError("The actor died unexpectedly before finishing this task.")
        return calls

    def kill(self, actor: Any, no_restart: bool) -> None:
        self.killed.append(actor)


A, B = "a", "b"
WHERE: Any = [SimpleNamespace(node=A), SimpleNamespace(node=B), SimpleNamespace(node=B)]


@pytest.fixture
def ray() -> _Ray:
    return _Ray()


def _spare(ray: _Ray, *, wanted: bool = True) -> Spare:
    spare = Spare(ray, ray.make, wanted=wanted)
    spare.start(WHERE)
    return spare


def test_it_waits_where_most_workers_are_and_becomes_one_of_them(ray: _Ray) -> None:
    spare = _spare(ray)
    assert ray.made == [B]
    spare.start(WHERE)
    assert len(ray.made) == 1, "there is one already"
    assert spare.take(2, B) is not None
    assert spare.took == [2]
    assert spare.take(1, B) is None, "there is none any more"
    spare.start(WHERE)
    assert len(ray.made) == 2


def test_it_never_becomes_a_worker_of_another_node(ray: _Ray) -> None:
    assert _spare(ray).take(0, A) is None


def test_one_that_has_not_started_yet_is_not_waited_for(ray: _Ray) -> None:
    ray.ready = False
    spare = _spare(ray)
    assert spare.take(1, B) is None
    ray.ready = True
    assert spare.take(1, B) is not None


def test_one_that_died_is_no_reason_for_another_failure(ray: _Ray) -> None:
    spare = _spare(ray)
    ray.dead = True
    assert spare.take(1, B) is None
    assert (len(ray.killed), spare.took) == (1, [])


def test_without_the_option_there_is_none_and_none_is_left_at_the_end(ray: _Ray) -> None:
    assert _spare(ray, wanted=False).take(1, B) is None
    assert ray.made == []
    spare = _spare(ray)
    spare.end()
    spare.end()
    assert len(ray.killed) == 1
