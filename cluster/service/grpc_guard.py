"""Who may call over gRPC, and what of a call is read before that is known: its metadata alone.

grpcio reads a request of a method that takes one message before the method is called. A method that takes a stream
reads for itself. So whoever has no token gets a method of the second kind, which reads nothing: what the caller sends
waits on its side, but for the 64 KiB of HTTP/2's window. That holds for health checks too, which are open to all:
grpcio keeps the memory of a large message with its connection, 0.9 MB each, though only one at a time was read.
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
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),  # most methods take less, see `reader`
    ("grpc.max_concurrent_streams", 100),  # of one connection; what is above waits at the caller
    ("grpc.max_allowed_incoming_connections", MOST_GRPC_CONNECTIONS),
    ("grpc.max_connection_idle_ms", 30_000),  # without a call; a client connects anew when it has something to ask
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_time_ms", 60_000),  # a caller that is gone, or reads nothing, does not stay connected
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.server.max_pending_requests", 500),  # calls that came and were not looked at yet; above, some are cancelled,
    ("grpc.server.max_pending_requests_hard_limit", 1000),  # and above this, all
    ("grpc.http2.bdp_probe", 0),  # else windows grow to megabytes for whoever sends fast
    ("grpc.http2.lookahead_bytes", 16 * 1024),  # of a message that nobody reads; of one that is read all may come
    ("grpc.experimental.tcp_max_read_chunk_size", 64 * 1024),  # else buffers of sockets grow to megabytes, too
)
MAX_CALLS = 2000
"""At once, of all callers together."""
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
    """Stands for a message that cannot be read; `why` is the end of a sentence."""

    def __init__(self, why: str) -> None:
        self.why = why


def reader(kind: Any, most: int = _SMALL_BYTES) -> Callable[[bytes], Any]:
    """Reads messages of this kind that have at most so many bytes; gives UnreadableMessage for another, which
    grpcio would answer by INTERNAL if it were raised."""

    def read(content: bytes) -> Any:
        if len(content) > most:
            return UnreadableMessage(f"has {len(content):,} bytes, must be at most {most:,}")
        try:
            return kind.FromString(content)
        except DecodeError:
            return UnreadableMessage(f"is no {kind.DESCRIPTOR.name}")

    return read


async def require(request: Any, context: Any) -> Any:
    """The request; the call is ended by INVALID_ARGUMENT if it is UnreadableMessage."""
    if isinstance(request, UnreadableMessage):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the request {request.why}")
    return request


class RequireToken(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpcio has no types
    """Turns away calls without the token of the home, before anything of their requests is read."""

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
            "the call shows no token, or another one; the right one is in the file `token` of the service's home",
        )


def _turned_away(handler: Any, code: grpc.StatusCode, why: str) -> Any:
    """A handler that reads nothing, and only says no."""

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
    """Calls of health checks without the token: few at once, and each is asked about the service as a whole, whatever
    name stands in the request, since nobody reads that."""

    def __init__(self) -> None:
        self._calls = 0

    def bounded(self, handler: Any) -> Any:
        """The handler as one that reads nothing; one that says no if there are too many calls already."""
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
