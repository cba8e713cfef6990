"""Streams about one job that outlast a service that is ended and started again."""

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
"""How long a service that does not answer is waited for."""
ENDED = frozenset(state.name for state in STATES if state.ended)
"""A job in one of these states never changes again."""
RUNNER = -1
"""The number that stands for the job runner where others are a worker's."""

OnBreak = Callable[[PipetrainError], None]

_SILENCE_S = 60.0
"""The service says something every 15 s, so a silence of this length is a connection that is gone."""
_BREAKS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)  # killed; ended in good order


class _Breaks:
    """Breaks of one stream: how long each is borne, and who is told."""

    def __init__(self, connection: Connection, patience_s: float, on_break: OnBreak | None) -> None:
        self._connection, self._patience_s, self._on_break = connection, patience_s, on_break
        self._pauses: Iterator[bool] | None = None

    def over(self) -> None:
        """Something came."""
        self._connection.answered = True
        self._pauses = None

    def pause(self, failure: Any) -> None:
        """Wait before the next try; `failure` is None for a stream that ended before its time. Raises the failure."""
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
    """Cancels a call of which nothing came for `limit_s`; `_SILENCE_S` before its first message."""

    def __init__(self, call: Any, limit_s: float) -> None:
        self._call, self._limit_s = call, limit_s
        self._end: float | None = time.monotonic() + _SILENCE_S
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="silence", daemon=True).start()

    def pause(self) -> None:
        """A message came. What its reader does with it is not the service's silence."""
        self._end = None

    def begin(self) -> None:
        """The reader waits for the next one."""
        self._end = time.monotonic() + self._limit_s

    def close(self) -> None:
        """Look no longer."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(self._limit_s / 4) and not self._look():
            pass

    def _look(self) -> bool:
        """Cancel the call if it is silent for too long; whether it was."""
        end = self._end
        if end is None or time.monotonic() <= end:
            return False
        self._call.cancel()
        return True


def _messages(call: Any, silence_s: float) -> Iterator[Any]:
    """The messages of a stream, which is cancelled after so long a silence, and however its reader ends."""
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
    """Every update until the job has ended, each once. After a break the stream goes on from its cursor.

    Raises TimeoutError after `timeout_s`, NoService when the service did not come back within `patience_s`.
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
    """The updates that there are at present."""
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
    """(worker, line) as they come; RUNNER for the job runner. After a break no line is doubled or lost.

    With `tail` nobody knows which line a new stream would begin with, so a break then ends it with its error.
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
    """Lines as the process meant them: only a line feed ends one."""
    return text.decode("utf-8", "replace").removesuffix("\n").split("\n")


def _has_ended(connection: Connection, job: str) -> bool:
    answer = connection.call("Get", pb.GetRequest(id=job))
    return state_name(answer.state) in ENDED
