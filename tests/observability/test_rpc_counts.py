"""Every call to the gRPC port is counted once, with the status code that its caller got."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from cluster.service.grpc_guard import RequireToken
from cluster.service.metrics_rpcs import CountRpcs, RpcCounts, code_name, method_name

_METADATA = (("authorization", "Bearer secret"),)


async def _echo(request: bytes, context: Any) -> bytes:
    return request


async def _abort(request: bytes, context: Any) -> bytes:
    await context.abort(grpc.StatusCode.NOT_FOUND, "no such job")
    return b""


async def _broken(request: bytes, context: Any) -> bytes:
    raise ZeroDivisionError


async def _count(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for number in range(int(request)):
        yield str(number).encode()
        await asyncio.sleep(0)


async def _written(request: bytes, context: Any) -> None:
    await context.write(b"1")


async def _last(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return [request async for request in requests][-1]


METHODS = {
    "Echo": grpc.unary_unary_rpc_method_handler(_echo),
    "Abort": grpc.unary_unary_rpc_method_handler(_abort),
    "Broken": grpc.unary_unary_rpc_method_handler(_broken),
    "Count": grpc.unary_stream_rpc_method_handler(_count),
    "Written": grpc.unary_stream_rpc_method_handler(_written),
    "Last": grpc.stream_unary_rpc_method_handler(_last),
}


def _served(calls: Callable[[grpc.aio.Channel], Awaitable[None]]) -> RpcCounts:
    """Return the counts of a server after these calls."""
    counts = RpcCounts()

    async def within() -> None:
        server = grpc.aio.server(interceptors=[CountRpcs(counts), RequireToken("secret")])
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("pipetrain.v1.Pipetrain", METHODS),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                await calls(channel)
                async with asyncio.timeout(10):
                    while any(counts.open.values()):
                        await asyncio.sleep(0.01)
        finally:
            await server.stop(1)

    asyncio.run(within())
    return counts


def _path(method: str) -> str:
    return f"/pipetrain.v1.Pipetrain/{method}"


def test_calls_of_every_form_are_counted_by_method_and_code() -> None:
    async def calls(channel: grpc.aio.Channel) -> None:
        for _ in range(3):
            assert await channel.unary_unary(_path("Echo"))(b"a", metadata=_METADATA) == b"a"
        for method in ("Abort", "Broken", "Nothing"):
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(_path(method))(b"a", metadata=_METADATA)
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary(_path("Echo"))(b"a")
        for method in ("Count", "Written"):
            assert [part async for part in channel.unary_stream(_path(method))(b"2", metadata=_METADATA)]
        assert await channel.stream_unary(_path("Last"))(iter([b"a", b"b"]), metadata=_METADATA) == b"b"

    counts = _served(calls)
    assert counts.finished == {
        ("Echo", "OK"): 3,
        ("Echo", "UNAUTHENTICATED"): 1,
        ("Abort", "NOT_FOUND"): 1,
        ("Broken", "UNKNOWN"): 1,
        ("unknown", "UNIMPLEMENTED"): 1,
        ("Count", "OK"): 1,
        ("Written", "OK"): 1,
        ("Last", "OK"): 1,
    }
    assert {method: sum(found.counts) for method, found in counts.seconds.items()} == {
        "Echo": 4,
        "Abort": 1,
        "Broken": 1,
        "Last": 1,
    }, "only calls with one answer are timed"


def test_a_caller_who_hangs_up_is_counted_as_cancelled() -> None:
    async def calls(channel: grpc.aio.Channel) -> None:
        call = channel.unary_stream(_path("Count"))(b"1000000000", metadata=_METADATA)
        await call.read()
        call.cancel()

    assert _served(calls).finished == {("Count", "CANCELLED"): 1}


def test_names_are_short_and_distinct() -> None:
    assert method_name("/pipetrain.v1.Pipetrain/Watch") == "Watch"
    assert method_name("/grpc.health.v1.Health/Watch") == "Health/Watch"


@pytest.mark.parametrize(
    ("code", "name"), [(None, "OK"), (0, "OK"), (5, "NOT_FOUND"), (grpc.StatusCode.ABORTED, "ABORTED"), (99, "UNKNOWN")]
)
def test_codes_have_their_names(code: object, name: str) -> None:
    assert code_name(code) == name
