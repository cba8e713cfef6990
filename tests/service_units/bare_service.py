"""Runs the two ports of a service in a separate process, without a store, jobs or Ray.

It prints the ports of gRPC and HTTP. UploadData and HTTP requests count their bytes; all other calls raise.
"""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI, Request, WebSocket

from cluster.dashboard.guard import LOOPBACK, Guard
from cluster.service import server
from cluster.service.metrics_rpcs import RpcCounts
from cluster.service.server import Servers
from cluster.wire import pipetrain_pb2 as pb

TOKEN = "0123456789abcdef" * 4


class _Api:
    async def UploadData(self, requests: Any, context: Any) -> pb.UploadResponse:
        return pb.UploadResponse(received=sum([len(request.data) async for request in requests]))

    async def Stats(self, request: Any, context: Any) -> pb.StatsResponse:
        return pb.StatsResponse()

    def __getattr__(self, name: str) -> Any:
        async def method(request: Any, context: Any) -> Any:
            raise NotImplementedError(name)

        return method


def _app() -> FastAPI:
    app = FastAPI()
    app.add_middleware(Guard, names=LOOPBACK, token=TOKEN)

    @app.websocket("/ws")
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(str(len(text)))

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def count(request: Request) -> int:
        return len(await request.body())

    return app


async def _serve() -> None:
    server.DASHBOARD = "json"  # instead of the dashboard: the app below
    metrics: Any = SimpleNamespace(rpcs=RpcCounts())
    api: Any = _Api()
    servers = Servers(api, TOKEN, metrics)
    http_port, http = servers.listen_http("127.0.0.1", 0, _app)
    grpc_port = await servers.listen_grpc("127.0.0.1", 0)
    serving = asyncio.ensure_future(http)
    await servers.http_up.wait()
    print(grpc_port, http_port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await servers.stop(0)
    await serving


if __name__ == "__main__":
    asyncio.run(_serve())
