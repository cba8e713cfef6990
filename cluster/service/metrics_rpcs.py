"""Counts the calls that the gRPC server answers."""

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
_UNKNOWN = "unknown"  # one label for all methods that do not exist, whose names the caller chooses
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
        """Count one call, which lasts as long as the block of `with`."""
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
            ended = "UNKNOWN" if ended == "OK" else ended  # grpcio's code for an uncaught error
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
    """Counts every call. It must be the first interceptor, because later ones may reject calls."""

    def __init__(self, counts: RpcCounts) -> None:
        self._counts = counts

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """Return the handler of the call, wrapped so that it is counted."""
        handler = await continuation(details)
        if handler is None:
            self._counts.finish(_UNKNOWN, "UNIMPLEMENTED")
            return None
        return _counted(handler, self._counts, method_name(details.method))


def method_name(path: str) -> str:
    """Return `Submit` for a method of this service, `Health/Check` for one of another service."""
    return path.removeprefix(_OWN) if path.startswith(_OWN) else path.rpartition(".")[2]


def code_name(code: Any) -> str:
    """Return the status code's name; OK if the call set no code."""
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
    """Wrap a streaming method. Most methods yield their answers, but health checks write them into the context."""

    async def yielding(request: Any, context: Any) -> AsyncIterator[Any]:
        with counts.call(method, context, timed=False):
            async with aclosing(inner(request, context)) as answers:
                async for answer in answers:
                    yield answer

    async def writing(request: Any, context: Any) -> None:
        with counts.call(method, context, timed=False):
            await inner(request, context)

    return yielding if inspect.isasyncgenfunction(inner) else writing
