"""Checks the token of gRPC calls, and reads only a call's metadata before that.

grpcio reads the request of a unary method before it calls the method, but a streaming method reads its requests itself.
So a call without the token is answered by a streaming method that reads nothing: the caller's data waits on its side,
except for the 64 KiB of HTTP/2's window. Health checks, which need no token, are answered in the same way: grpcio keeps
the memory of a large message with its connection, 0.9 MB each, even if only one of them is read at a time.
"""

from __future__ import annotations

import hmac
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health

from cluster.wire.limits import MAX_REQUEST_BYTES

MOST_GRPC_CONNECTIONS = 1000
CONNECTION_LIMITS = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),  # most methods accept less, see `reader`
    ("grpc.max_concurrent_streams", 100),  # of one connection; further calls wait at the caller
    ("grpc.max_allowed_incoming_connections", MOST_GRPC_CONNECTIONS),
    ("grpc.max_connection_idle_ms", 30_000),  # without a call; a client connects again for its next call
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_time_ms", 60_000),  # ends connections of callers that are gone or read nothing
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.server.max_pending_requests", 500),  # calls not yet looked at; above this number, some are cancelled,
    ("grpc.server.max_pending_requests_hard_limit", 1000),  # and above this number, all
    ("grpc.http2.bdp_probe", 0),  # else the windows of fast senders grow to megabytes
    ("grpc.http2.lookahead_bytes", 16 * 1024),  # of a message that is not being read yet
    ("grpc.experimental.tcp_max_read_chunk_size", 64 * 1024),  # else socket buffers grow to megabytes, too
)
MAX_CALLS = 2000
"""The most calls at a time, of all callers together."""
_SMALL_BYTES = 64 * 1024
_OPEN_CALLS = 64
_OPEN = f"/{health.SERVICE_NAME}/"
_METHODS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}

Continuation = Callable[[Any], Awaitable[Any]]


class UnreadableMessage:
    """Stands for a message that cannot be read. `why` completes the sentence "the request …"."""

    def __init__(self, why: str) -> None:
        self.why = why


def reader(kind: Any, most: int = _SMALL_BYTES) -> Callable[[bytes], Any]:
    """Return a function that reads messages of this kind with at most `most` bytes. For another message it returns
    UnreadableMessage; grpcio would turn an exception into the status INTERNAL."""

    def read(content: bytes) -> Any:
        if len(content) > most:
            return UnreadableMessage(f"has {len(content):,} bytes, must be at most {most:,}")
        try:
            return kind.FromString(content)
        except DecodeError:
            return UnreadableMessage(f"is no {kind.DESCRIPTOR.name}")

    return read


async def require(request: Any, context: Any) -> Any:
    """Return the request, or end the call with INVALID_ARGUMENT if it is an UnreadableMessage."""
    if isinstance(request, UnreadableMessage):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the request {request.why}")
    return request


class RequireToken(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpcio has no types
    """Rejects calls without the home's token before it reads anything of their requests."""

    def __init__(self, token: str) -> None:
        self._wanted = f"Bearer {token}".encode()
        self._open = _OpenCalls()

    async def intercept_service(self, continuation: Continuation, details: Any) -> Any:
        """Let the call through, or answer UNAUTHENTICATED."""
        handler = await continuation(details)
        if handler is None:
            return None
        shown = dict(details.invocation_metadata).get("authorization", "")
        given = shown if isinstance(shown, bytes) else shown.encode("utf-8", "replace")
        if hmac.compare_digest(given, self._wanted):
            return handler
        if details.method.startswith(_OPEN):
            return self._open.bounded(handler)
        return _turned_away(
            handler,
            grpc.StatusCode.UNAUTHENTICATED,
            "the call has no token or a wrong one; the right one is in the file `token` of the service's home",
        )


def _turned_away(handler: Any, code: grpc.StatusCode, why: str) -> Any:
    """Return a handler that reads nothing and ends the call with this status."""

    async def unary(requests: Any, context: Any) -> None:
        await context.abort(code, why)

    async def stream(requests: Any, context: Any) -> Any:
        await context.abort(code, why)
        yield None

    answers = handler.response_streaming
    return _METHODS[True, answers](
        stream if answers else unary,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


class _OpenCalls:
    """Health checks without the token: at most _OPEN_CALLS at a time. Each gets the health of the whole service: the
    request, which may name a service, is not read."""

    def __init__(self) -> None:
        self._calls = 0

    def bounded(self, handler: Any) -> Any:
        """Return a handler that answers without reading the request, or rejects the call if too many are open."""
        if self._calls >= _OPEN_CALLS:
            return _turned_away(
                handler, grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_OPEN_CALLS} health checks without the token are open"
            )
        inner = _method(handler)
        asked = handler.request_deserializer(b"")

        async def single(requests: Any, context: Any) -> Any:
            with self._counted():
                return await inner(asked, context)

        async def yielding(requests: Any, context: Any) -> AsyncIterator[Any]:
            with self._counted():
                async for answer in inner(asked, context):
                    yield answer

        return _METHODS[True, handler.response_streaming](
            yielding if inspect.isasyncgenfunction(inner) else single,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1


def _method(handler: Any) -> Any:
    return handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
