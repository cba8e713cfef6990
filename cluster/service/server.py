"""The two ports: gRPC with health checks and reflection, and HTTP with pages, /healthz and /metrics."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from importlib import import_module
from typing import Any

import grpc
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cluster.service.api import Api
from cluster.service.connections import MOST_FROM_A_PAGE_BYTES, BoundedConnection
from cluster.service.grpc_guard import CONNECTION_LIMITS, MAX_CALLS, RequireToken, reader, require
from cluster.service.metrics import Metrics
from cluster.service.metrics_rpcs import CountRpcs
from cluster.wire import pipetrain_pb2 as pb
from cluster.wire.limits import MAX_REQUEST_BYTES
from stages.errors import UserMistake

SERVICE = "pipetrain.v1.Pipetrain"
DASHBOARD = "cluster.dashboard.web"
_MAX_ANSWER_BYTES = 32 * 2**20  # the largest answer is a job with its document
_log = logging.getLogger(__name__)


class Servers:
    """Both servers of one service."""

    def __init__(self, api: Api, token: str, metrics: Metrics) -> None:
        self.health = health.aio.HealthServicer()
        self._grpc = grpc.aio.server(
            interceptors=[CountRpcs(metrics.rpcs), RequireToken(token)],
            options=[
                *CONNECTION_LIMITS,
                ("grpc.max_send_message_length", _MAX_ANSWER_BYTES),
                ("grpc.so_reuseport", 0),  # a second service must not share the port
            ],
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        self._grpc.add_generic_rpc_handlers((_handlers(api),))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._grpc)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._grpc)
        self._http: uvicorn.Server | None = None
        self._stopping = False
        self.http_up = asyncio.Event()

    async def listen_grpc(self, host: str, port: int) -> int:
        """Start the gRPC server and return its port. Raises UserMistake if the port is in use or not allowed."""
        try:
            bound: int = self._grpc.add_insecure_port(f"{host}:{port}")
        except RuntimeError:
            bound = 0
        if not bound:
            raise UserMistake(
                f"--grpc-port {port}: {host}:{port} is in use or not allowed; choose another port, or 0 for a free one"
            )
        await self._grpc.start()
        await self.serving(True)
        return bound

    async def serving(self, answers: bool) -> None:
        """Set the answer of health checks."""
        status = health_pb2.HealthCheckResponse.SERVING if answers else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE):
            await self.health.set(name, status)

    def listen_http(self, host: str, port: int, make_app: Callable[[], Any]) -> tuple[int, Awaitable[None]]:
        """Bind the HTTP port; return it with an awaitable that serves until `stop`. Raises UserMistake if the port is
        in use or not allowed."""
        try:
            socket = uvicorn.Config("", host=host, port=port, log_level="warning").bind_socket()
        except (OSError, SystemExit):
            raise UserMistake(
                f"--http-port {port}: {host}:{port} is in use or not allowed; choose another port, or 0 for a free one"
            ) from None
        return socket.getsockname()[1], self._serve_http(socket, make_app)

    async def _serve_http(self, socket: Any, make_app: Callable[[], Any]) -> None:
        # loaded in a thread while Ray starts: these are the slowest modules to load, and Ray takes longer still
        await asyncio.to_thread(import_module, DASHBOARD)
        if self._stopping:
            return
        config = uvicorn.Config(
            make_app(),
            http=BoundedConnection,
            log_config=None,  # use the service's own logging
            log_level="warning",
            access_log=False,
            lifespan="on",
            proxy_headers=False,  # trust the connection's address, not a header
            timeout_graceful_shutdown=1,  # open pages would delay the end
            ws_per_message_deflate=False,  # connections are local
            ws_max_size=MOST_FROM_A_PAGE_BYTES,
        )
        self._http = _Quiet(config, self.http_up)
        await self._http.serve(sockets=[socket])

    async def stop(self, grace_s: float) -> None:
        """Accept no new calls, and give calls under way `grace_s` seconds to end."""
        await self.serving(False)
        self._stopping = True
        if self._http is not None:
            self._http.should_exit = True
        await self._grpc.stop(grace_s)


class _Quiet(uvicorn.Server):  # type: ignore[misc]
    """A server that leaves signals to the service, and sets an event when it answers."""

    def __init__(self, config: uvicorn.Config, up: asyncio.Event) -> None:
        super().__init__(config)
        self._up = up

    async def startup(self, sockets: Any = None) -> None:
        """Start, then set the event."""
        await super().startup(sockets=sockets)
        if self.started:
            self._up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals."""
        yield


def _handlers(api: Api) -> Any:
    """Return the handlers of the methods. List and Watch send bytes that were serialised once for all callers."""

    def unary(method: Any, request: Any, **most: int) -> Any:
        async def checked(given: Any, context: Any) -> Any:
            return await method(await require(given, context), context)

        return grpc.unary_unary_rpc_method_handler(
            checked, request_deserializer=reader(request, **most), response_serializer=_serialise
        )

    def stream(method: Any, request: Any, serialise: Any = None) -> Any:
        async def checked(given: Any, context: Any) -> Any:
            async for answer in method(await require(given, context), context):
                yield answer

        return grpc.unary_stream_rpc_method_handler(
            checked, request_deserializer=reader(request), response_serializer=serialise or _serialise
        )

    methods = {
        "Submit": unary(api.Submit, pb.SubmitRequest, most=MAX_REQUEST_BYTES),
        "Get": unary(api.Get, pb.GetRequest),
        "List": stream(api.List, pb.ListRequest, bytes),
        "Watch": stream(api.Watch, pb.WatchRequest, bytes),
        "Logs": stream(api.Logs, pb.LogsRequest),
        "Stop": unary(api.Stop, pb.StopRequest),
        "Delete": unary(api.Delete, pb.DeleteRequest),
        "Fetch": stream(api.Fetch, pb.FetchRequest),
        "Trace": stream(api.Trace, pb.TraceRequest),
        "InjectFault": unary(api.InjectFault, pb.FaultRequest),
        "UploadData": grpc.stream_unary_rpc_method_handler(
            api.UploadData, request_deserializer=pb.UploadRequest.FromString, response_serializer=_serialise
        ),
        "Plan": unary(api.Plan, pb.PlanRequest, most=MAX_REQUEST_BYTES),
        "Stats": unary(api.Stats, pb.StatsRequest),
        "Cluster": unary(api.Cluster, pb.ClusterRequest),
    }
    wanted = {method.name for method in pb.DESCRIPTOR.services_by_name["Pipetrain"].methods}
    assert set(methods) == wanted, "each method of the .proto has its handler"
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def _serialise(message: Any) -> bytes:
    serialised: bytes = message.SerializeToString()
    return serialised
