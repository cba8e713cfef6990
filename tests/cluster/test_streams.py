"""Streams about a job over a scripted connection: which breaks are retried, which are reported, and what ends them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import grpc
import pytest

from cluster.client.address import ServiceAddress
from cluster.client.failures import TRANSIENT
from cluster.client.streams import RUNNER, _Silence, log_lines, messages_so_far, watch_messages
from cluster.wire import pipetrain_pb2 as pb
from stages.errors import NoService, PipetrainError, UnknownJob

Code = grpc.StatusCode


class Broken(grpc.RpcError):  # type: ignore[misc]
    """The error that gRPC raises for a failed call."""

    def __init__(self, code: Any, text: str = "Socket closed") -> None:
        super().__init__(text)
        self._code, self._text = code, text

    def code(self) -> Any:
        return self._code

    def details(self) -> str:
        return self._text

    def trailing_metadata(self) -> tuple[()]:
        return ()


class Call:
    """A stream that yields messages, raises the errors among them, and at a None waits for its cancellation."""

    def __init__(self, script: list[Any]) -> None:
        self._script = script
        self.cancelled = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        for entry in self._script:
            if entry is None:
                assert self.cancelled.wait(30), "nobody cancelled the call"
                raise Broken(Code.CANCELLED, "Locally cancelled by application!")
            if isinstance(entry, Exception):
                raise entry
            yield entry

    def cancel(self) -> None:
        self.cancelled.set()


class Connection:
    """A fake connection: each new stream follows the next script."""

    metadata = ()
    address = ServiceAddress(target="h:1", source="the argument", token=None, token_source="", home=Path("/h"))

    def __init__(self, *scripts: list[Any], tries: int = 100, state: Any = pb.SUCCEEDED) -> None:
        self._scripts, self._tries, self._state = [*scripts], tries, state
        self.answered = True
        self.calls = self
        self.requests: list[Any] = []
        self.made: list[Call] = []

    def Watch(self, request: Any, timeout: Any = None, metadata: Any = ()) -> Call:
        copy = type(request)()
        copy.CopyFrom(request)
        self.requests.append(copy)
        self.made.append(Call(self._scripts.pop(0)))
        return self.made[-1]

    Logs = Watch

    def pauses(self, patience_s: float) -> Iterator[bool]:
        return iter([True] * self._tries)

    def may_return(self, failure: Any, codes: Any = TRANSIENT) -> bool:
        return failure.code() in codes

    def call(self, method: str, request: Any) -> Any:
        assert method == "Get"
        return pb.Job(id=request.id, state=self._state)


def _update(cursor: str, state: Any = None) -> pb.WatchUpdate:
    return pb.WatchUpdate(cursor=cursor, job=None if state is None else pb.Job(id="k", state=state))


def _watch(connection: Connection, **options: Any) -> Iterator[pb.WatchUpdate]:
    return watch_messages(connection, pb.WatchRequest(id="k"), **options)  # type: ignore[arg-type]


def _logs(connection: Connection, **request: Any) -> Iterator[tuple[int, str]]:
    return log_lines(connection, pb.LogsRequest(id="k", **request))  # type: ignore[arg-type]


BREAKS: dict[str, Callable[[], list[Any]]] = {
    "killed": lambda: [Broken(Code.UNAVAILABLE)],
    "ended in good order": lambda: [Broken(Code.CANCELLED)],
    "ended without a word": list,
}
FINAL = _update("1.0.9", pb.SUCCEEDED)


@pytest.mark.parametrize("how", BREAKS)
def test_a_watch_goes_on_from_its_last_cursor_after_every_kind_of_break(how: str) -> None:
    script = [_update("1.0.1", pb.RUNNING), _update("1.0.2"), *BREAKS[how]()]
    connection, told = Connection(script, BREAKS[how](), [FINAL]), list[PipetrainError]()
    updates = list(_watch(connection, on_break=told.append))
    assert [update.cursor for update in updates] == ["1.0.1", "1.0.2", "1.0.9"]
    assert [request.cursor for request in connection.requests] == ["", "1.0.2", "1.0.2"]
    assert [type(error) for error in told] == [NoService], "of two breaks in a row, the first is reported"
    assert all(call.cancelled.is_set() for call in connection.made), "no stream is left open"


def test_each_break_after_something_came_is_told() -> None:
    scripts = [[_update(f"1.0.{n}"), Broken(Code.UNAVAILABLE)] for n in range(1, 4)]
    told: list[PipetrainError] = []
    list(_watch(Connection(*scripts, [FINAL]), on_break=told.append))
    assert len(told) == 3


def test_patience_ends_with_what_broke_last() -> None:
    connection = Connection(*([Broken(Code.UNAVAILABLE)] for _ in range(3)), tries=2)
    with pytest.raises(NoService, match="no service answers at h:1"):
        list(_watch(connection))
    assert len(connection.requests) == 3


def test_what_waiting_does_not_mend_is_raised_at_once() -> None:
    connection, told = Connection([_update("1.0.1"), Broken(Code.NOT_FOUND, "no job k")]), list[PipetrainError]()
    with pytest.raises(UnknownJob, match="no job k"):
        list(_watch(connection, on_break=told.append))
    assert told == []


def test_a_watch_ends_with_the_job_even_if_the_connection_breaks_right_after_it() -> None:
    """If the stream breaks after the final state, the next stream must send that state again and end."""
    connection = Connection([FINAL, Broken(Code.UNAVAILABLE)], [FINAL])
    assert [update.cursor for update in _watch(connection)] == ["1.0.9", "1.0.9"]


def test_a_deadline_is_told_as_one_and_not_as_a_break() -> None:
    connection = Connection([_update("1.0.1", pb.RUNNING), Broken(Code.DEADLINE_EXCEEDED)])
    with pytest.raises(TimeoutError, match=r"k has not ended within 0\.5 s"):
        list(_watch(connection, timeout_s=0.5))


def test_a_silent_stream_is_cut_and_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.client.streams._SILENCE_S", 0.1)
    connection, told = Connection([_update("1.0.1"), None], [FINAL]), list[PipetrainError]()
    assert [update.cursor for update in _watch(connection, on_break=told.append)] == ["1.0.1", "1.0.9"]
    assert [str(error) for error in told] == ["the service at h:1 closed the connection, or sent nothing for too long"]


def test_a_reader_that_takes_its_time_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks, look = [0.0], threading.Semaphore(0), _Silence._look

    def counted(silence: _Silence) -> bool:
        found = look(silence)
        looks.release()
        return found

    monkeypatch.setattr("cluster.client.streams.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("cluster.client.streams._SILENCE_S", 0.02)
    monkeypatch.setattr(_Silence, "_look", counted)
    connection = Connection([_update("1.0.1"), FINAL])
    for _ in _watch(connection):
        now[0] += 1.0  # much longer than a service may be silent
        while looks.acquire(blocking=False):
            pass
        for _ in range(2):  # the first one may have begun earlier
            assert looks.acquire(timeout=30), "no thread watches for silence"
        assert not connection.made[0].cancelled.is_set()
    assert len(connection.requests) == 1


def test_what_there_is_now_is_not_asked_for_twice() -> None:
    connection = Connection([_update("1.0.1"), Broken(Code.UNAVAILABLE)])
    with pytest.raises(NoService):
        list(messages_so_far(connection, pb.WatchRequest(id="k")))  # type: ignore[arg-type]
    assert [request.until_now for request in connection.requests] == [True]


# logs --------------------------------------------------------------------------------------------------------------


def _chunk(worker: int, text: str) -> pb.LogChunk:
    return pb.LogChunk(worker=worker, text=text.encode())


def test_after_a_break_each_worker_s_log_goes_on_after_its_own_last_line() -> None:
    """A new stream starts from the beginning, and may send the workers in another order."""
    first = [_chunk(RUNNER, "r1\n"), _chunk(0, "a1\na2\n"), Broken(Code.UNAVAILABLE)]
    second = [_chunk(0, "a1\na2\na3\n"), _chunk(RUNNER, "r1\nr2\n"), _chunk(1, "b1\n")]
    found = list(_logs(Connection(first, second), follow=True))
    assert found == [(RUNNER, "r1"), (0, "a1"), (0, "a2"), (0, "a3"), (RUNNER, "r2"), (1, "b1")]


def test_a_log_that_is_followed_ends_when_the_job_has() -> None:
    connection = Connection([_chunk(0, "a1\n")], [_chunk(0, "a1\na2\n")], [_chunk(0, "a1\na2\n")], state=pb.RUNNING)

    def ends_later(method: str, request: Any) -> Any:
        return pb.Job(id="k", state=pb.RUNNING if len(connection.requests) < 3 else pb.FAILED)

    connection.call = ends_later  # type: ignore[method-assign]
    assert list(_logs(connection, follow=True)) == [(0, "a1"), (0, "a2")]
    assert len(connection.requests) == 3


def test_a_log_that_is_not_followed_is_read_once() -> None:
    def ask(method: str, request: Any) -> NoReturn:
        raise AssertionError("no call queries whether the job has ended")

    connection = Connection([_chunk(0, "a1\r\u2028\n\nb\n")])
    connection.call = ask  # type: ignore[method-assign]
    assert list(_logs(connection)) == [(0, "a1\r\u2028"), (0, ""), (0, "b")], "only a line feed ends a line"


def test_the_end_of_a_log_breaks_with_its_error_as_nobody_knows_where_it_would_go_on() -> None:
    lines = _logs(Connection([_chunk(0, "y\n"), Broken(Code.UNAVAILABLE)]), follow=True, tail=1)
    assert next(lines) == (0, "y")
    with pytest.raises(NoService):
        next(lines)
    nothing_yet = Connection([Broken(Code.UNAVAILABLE)], [_chunk(0, "y\n")])
    assert list(_logs(nothing_yet, follow=True, tail=1)) == [(0, "y")]
