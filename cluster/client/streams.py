"""Streams about one job, which continue after the service is ended and started again."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import grpc

from cluster.client.connection import Connection
from cluster.client.failures import error_of
from cluster.wire import pipetrain_pb2 as pb
from cluster.wire.convert import state_name
from coordinator.queue.job_states import STATES
from stages.errors import NoService, PipetrainError

PATIENCE_S = 60.0
"""How many seconds a stream waits for a service that does not answer."""
ENDED = frozenset(state.name for state in STATES if state.ended)
"""A job in one of these states never changes again."""
RUNNER = -1
"""The number of the job runner among the numbers of workers."""

OnBreak = Callable[[PipetrainError], None]

_SILENCE_S = 60.0
"""The service sends something every 15 s, so that a connection without any message for this time is lost."""
_BREAKS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)  # the service was killed; the service ended normally


class _Breaks:
    """The broken connections of one stream. Each time, it waits up to `patience_s` and calls `on_break` once."""

    def __init__(self, connection: Connection, patience_s: float, on_break: OnBreak | None) -> None:
        self._connection, self._patience_s, self._on_break = connection, patience_s, on_break
        self._pauses: Iterator[bool] | None = None

    def over(self) -> None:
        """A message arrived: the break is over."""
        self._connection.answered = True
        self._pauses = None

    def pause(self, failure: Any) -> None:
        """Wait before the next try; `failure` is None for a stream that ended too early. Raises the failure as our
        error if another try cannot help or the patience is over."""
        address = self._connection.address
        if failure is None:
            error: PipetrainError = NoService(f"the service at {address.target} ended the connection")
        else:
            error = error_of(failure, address)
            if not self._connection.may_return(failure, _BREAKS):
                raise error from None
        if self._pauses is None:
            self._pauses = self._connection.pauses(self._patience_s)
            if self._on_break is not None:
                self._on_break(error)
        if not next(self._pauses, False):
            raise error from None


class _Silence:
    """A watchdog that cancels a call without a message for `limit_s` seconds, or `_SILENCE_S` before the first one."""

    def __init__(self, call: Any, limit_s: float) -> None:
        self._call, self._limit_s = call, limit_s
        self._end: float | None = time.monotonic() + _SILENCE_S
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="silence", daemon=True).start()

    def pause(self) -> None:
        """A message arrived: stop the clock while the reader handles it."""
        self._end = None

    def begin(self) -> None:
        """The reader waits for the next message: start the clock."""
        self._end = time.monotonic() + self._limit_s

    def close(self) -> None:
        """Stop watching."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(self._limit_s / 4) and not self._look():
            pass

    def _look(self) -> bool:
        """Cancel the call if it was silent for too long; return whether it was."""
        end = self._end
        if end is None or time.monotonic() <= end:
            return False
        self._call.cancel()
        return True


def _messages(call: Any, silence_s: float) -> Iterator[Any]:
    """Yield the messages of a stream. It is cancelled after `silence_s` seconds without a message, and when its reader
    ends in any way."""
    with closing(_Silence(call, silence_s)) as silence:
        try:
            for message in call:
                silence.pause()
                yield message
                silence.begin()
        finally:
            call.cancel()


def watch_messages(
    connection: Connection,
    request: pb.WatchRequest,
    *,
    patience_s: float = PATIENCE_S,
    timeout_s: float | None = None,
    on_break: OnBreak | None = None,
) -> Iterator[pb.WatchUpdate]:
    """Yield every update until the job has ended, each once. After a break, the stream continues from its cursor.

    Raises TimeoutError after `timeout_s`, NoService if the service did not come back within `patience_s`.
    """
    end = None if timeout_s is None else time.monotonic() + timeout_s
    breaks = _Breaks(connection, patience_s, on_break)
    ended = False
    while True:
        left = None if end is None else max(0.0, end - time.monotonic())
        call = connection.calls.Watch(request, timeout=left, metadata=connection.metadata)
        failure = None
        try:
            for message in _messages(call, _SILENCE_S):
                breaks.over()
                request.cursor = message.cursor or request.cursor
                if message.HasField("job"):
                    ended = state_name(message.job.state) in ENDED
                yield message
        except grpc.RpcError as caught:
            failure = caught
        if failure is None and ended:
            return
        if failure is not None and end is not None and failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise TimeoutError(f"{request.id} has not ended within {timeout_s:g} s")
        breaks.pause(failure)


def messages_so_far(connection: Connection, request: pb.WatchRequest) -> Iterator[pb.WatchUpdate]:
    """Yield the updates up to now."""
    request.until_now = True
    call = connection.calls.Watch(request, metadata=connection.metadata)
    try:
        yield from _messages(call, _SILENCE_S)
    except grpc.RpcError as failure:
        if failure.code() is grpc.StatusCode.CANCELLED:
            target = connection.address.target
            raise NoService(f"the service at {target} ended, or sent nothing for {_SILENCE_S:g} s") from None
        raise error_of(failure, connection.address) from None
    connection.answered = True


def log_lines(
    connection: Connection,
    request: pb.LogsRequest,
    *,
    patience_s: float = PATIENCE_S,
    on_break: OnBreak | None = None,
) -> Iterator[tuple[int, str]]:
    """Yield (worker, line) as they arrive; RUNNER stands for the job runner. After a break, no line is doubled or lost.

    With `tail`, a break raises its error: the first line of a new stream would not be known.
    """
    breaks = _Breaks(connection, patience_s, on_break)
    seen: Counter[int] = Counter()
    while True:
        skip = Counter(seen)
        call = connection.calls.Logs(request, metadata=connection.metadata)
        failure = None
        try:
            for chunk in call:
                breaks.over()
                for line in _lines(chunk.text):
                    if skip[chunk.worker]:
                        skip[chunk.worker] -= 1
                        continue
                    seen[chunk.worker] += 1
                    yield chunk.worker, line
        except grpc.RpcError as caught:
            failure = caught
        finally:
            call.cancel()
        if failure is None and (not request.follow or _has_ended(connection, request.id)):
            return
        if request.tail and seen and failure is not None:
            raise error_of(failure, connection.address)
        breaks.pause(failure)


def _lines(text: bytes) -> list[str]:
    """Split the output of a process into lines. Only a line feed ends a line."""
    return text.decode("utf-8", "replace").removesuffix("\n").split("\n")


def _has_ended(connection: Connection, job: str) -> bool:
    answer = connection.call("Get", pb.GetRequest(id=job))
    return state_name(answer.state) in ENDED
