"""Counting the calls that the gRPC server answers."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import grpc

from cluster.service.job_stats import Distribution

_OWN = "/pipetrain.v1.Pipetrain/"
_UNKNOWN = "unknown"  # a caller chooses the name of a method that there is not
_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_NAMES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}


class RpcCounts:
    """Calls since the service started: `finished` by (method, code), `open` and `seconds` by method."""

    def __init__(self) -> None:
        self.finished: dict[tuple[str, str], int] = {}
        self.open: dict[str, int] = {}
        self.seconds: dict[str, Distribution] = {}

    @contextmanager
    def call(self, method: str, context: Any, *, timed: bool) -> Iterator[None]:
        """Count one call, which lasts as long as the block."""
        self.open[method] = self.open.get(method, 0) + 1
        began, ended = time.perf_counter(), "OK"
        try:
            yield
            ended = code_name(context.code())
        except (asyncio.CancelledError, GeneratorExit):
            ended = "CANCELLED"
            raise
        except BaseException:
            ended = code_name(context.code())
            ended = "UNKNOWN" if ended == "OK" else ended  # what grpcio answers for an error that nobody caught
            raise
        finally:
            self.open[method] -= 1
            self.finish(method, ended)
            if timed:
                self.seconds.setdefault(method, Distribution(_BOUNDS_S)).observe(time.perf_counter() - began)

    def finish(self, method: str, code: str) -> None:
        """Count the end of a call."""
        self.finished[method, code] = self.finished.get((method, code), 0) + 1


class CountRpcs(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpcio has no types
    """Counts every call. To be the first interceptor: those behind it may turn calls away."""

    def __init__(self, counts: RpcCounts) -> None:
        self._counts = counts

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """The handler of the call, wrapped."""
        handler = await continuation(details)
        if handler is None:
            self._counts.finish(_UNKNOWN, "UNIMPLEMENTED")
            return None
        return _counted(handler, self._counts, method_name(details.method))


def method_name(path: str) -> str:
    """`Submit` for one of our own methods, `Health/Check` for one of another service."""
    return path.removeprefix(_OWN) if path.startswith(_OWN) else path.rpartition(".")[2]


def code_name(code: Any) -> str:
    """The status code's name; a call that set none ended well."""
    number = code.value[0] if isinstance(code, grpc.StatusCode) else code or 0
    return _NAMES.get(number, "UNKNOWN")


def _counted(handler: Any, counts: RpcCounts, method: str) -> Any:
    if handler.response_streaming:
        inner = handler.stream_stream if handler.request_streaming else handler.unary_stream
        wrapped = _streaming(inner, counts, method)
    else:
        inner = handler.stream_unary if handler.request_streaming else handler.unary_unary
        wrapped = _single(inner, counts, method)
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make(
        wrapped,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _single(inner: Any, counts: RpcCounts, method: str) -> Any:
    async def answer(request: Any, context: Any) -> Any:
        with counts.call(method, context, timed=True):
            return await inner(request, context)

    return answer


def _streaming(inner: Any, counts: RpcCounts, method: str) -> Any:
    """Some services yield their answers, others write them into the context, as health checks do."""

    async def yielding(request: Any, context: Any) -> AsyncIterator[Any]:
        with counts.call(method, context, timed=False):
            async with aclosing(inner(request, context)) as answers:
                async for answer in answers:
                    yield answer

    async def writing(request: Any, context: Any) -> None:
        with counts.call(method, context, timed=False):
            await inner(request, context)

    return yielding if inspect.isasyncgenfunction(inner) else writing
