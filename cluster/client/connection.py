"""Calls to the service: each with a deadline and the token. Failed calls are repeated if that is safe; other failures
become our errors."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Container, Iterator
from typing import Any

import grpc

from cluster.client.address import ServiceAddress
from cluster.client.failures import TRANSIENT, error_of, is_answer, never_connected
from cluster.wire import pipetrain_pb2_grpc
from cluster.wire.limits import MAX_REQUEST_BYTES
from stages.errors import NoService, UserMistake

CALL_S = 10.0
"""Deadline of a call that only looks something up, in seconds."""
LONG_CALL_S = 60.0
"""Deadline of a call for which the service reads data or writes to disk, in seconds."""
RETRY_S = 15.0
"""How long a broken call is repeated, in seconds."""

_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 2**20),  # a job's document has up to 10 MB
    ("grpc.keepalive_time_ms", 310_000),  # to notice a lost host; servers reject more frequent pings
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # also the deadline of one attempt: a busy host needs more than a moment
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),  # a web proxy, set for other programs, often does not reach the cluster
    ("grpc.use_local_subchannel_pool", 1),  # else a failed connection of another client delays this one
)


class Connection:
    """A channel to the service that `find` returns. Each of its `calls` needs `metadata`, which contains the token.

    `answered`: the service has answered before. Then a refused connection means that it is being started again.
    """

    def __init__(self, find: Callable[[], ServiceAddress]) -> None:
        self._find = find
        self._channels: list[Any] = []
        self.answered = False
        self._open(find())

    def _open(self, address: ServiceAddress) -> None:
        self._channels.append(grpc.insecure_channel(address.target, options=_OPTIONS))
        self.address = address
        self._stub: Any = pipetrain_pb2_grpc.PipetrainStub(self._channels[-1])  # type: ignore[no-untyped-call]
        self.metadata = () if address.token is None else (("authorization", f"Bearer {address.token}"),)

    @property
    def calls(self) -> Any:
        """The service's methods by name, for one call now. This looks the service up again, so that nothing is sent to
        the port of a service that has ended, which may belong to another user now. If the service answered before and
        is gone, it waits up to RETRY_S for it. Raises NoService."""
        try:
            self._look()
        except NoService:
            if not self.answered or not next(self.pauses(RETRY_S), False):
                raise
        return self._stub

    def close(self) -> None:
        """Close the channel and every stream on it."""
        for channel in self._channels:
            channel.close()

    def pauses(self, patience_s: float) -> Iterator[bool]:
        """Yield True after each pause of `backoff` at whose end there is a service, perhaps at a new port."""
        for _ in backoff(patience_s):
            try:
                self._look()
            except NoService:
                continue
            yield True

    def _look(self) -> None:
        if (found := self._find()) != self.address:
            self._open(found)

    def call(self, method: str, request: Any, *, deadline_s: float = CALL_S, again: bool = True) -> Any:
        """Return the answer to a single request. `again`: repeating the request does no harm, so that a broken call is
        repeated for up to RETRY_S."""
        if request.ByteSize() > MAX_REQUEST_BYTES:
            raise UserMistake(
                f"the job has {request.ByteSize():,} bytes with every default written out; "
                f"a service takes at most {MAX_REQUEST_BYTES:,}"
            )
        pauses = self.pauses(RETRY_S if again else 0.0)
        while True:
            try:
                answer = getattr(self.calls, method)(request, timeout=deadline_s, metadata=self.metadata)
            except grpc.RpcError as failure:
                if not self.may_return(failure) or not next(pauses, False):
                    raise error_of(failure, self.address, deadline_s) from None
            else:
                self.answered = True
                return answer

    def may_return(self, failure: Any, codes: Container[grpc.StatusCode] = TRANSIENT) -> bool:
        """Whether the failure can mean that the service is being started again, so that another try may succeed."""
        if is_answer(failure):
            return False
        return failure.code() in codes and (self.answered or not never_connected(failure))

    @contextlib.contextmanager
    def failures(self, deadline_s: float | None = None) -> Iterator[None]:
        """Turn failures of a stream inside into our errors."""
        try:
            yield
        except grpc.RpcError as failure:
            raise error_of(failure, self.address, deadline_s) from None
        self.answered = True


def backoff(patience_s: float, *, first_s: float = 0.1, most_s: float = 2.0) -> Iterator[bool]:
    """Sleep, then yield True: each time longer, until `patience_s` seconds have passed. The pauses are partly random,
    so that many clients do not all come back at once."""
    end, pause = time.monotonic() + patience_s, first_s
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, pause * random.uniform(0.5, 1.0)))
        pause = min(2 * pause, most_s)
        yield True
