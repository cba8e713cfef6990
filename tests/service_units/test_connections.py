"""Connections of the HTTP port: one whose answer is not read is closed, and a full port is reported."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from cluster.service import connections as module
from cluster.service.connections import BoundedConnection
from cluster.service.crowding import Crowding, Port
from cluster.service.health import Health
from tests.service_units.scripted import scripted

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
MIB = 2**20


class _App:
    """Answers with this many MiB. `sent` is how much of it the connection took."""

    def __init__(self, mib: int) -> None:
        self.mib, self.sent, self.ended = mib, 0, asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(self.mib):
            await send({"type": "http.response.body", "body": bytes(MIB), "more_body": True})
            self.sent += 1
        await send({"type": "http.response.body", "body": b"."})
        self.ended.set()


@contextlib.asynccontextmanager
async def _served(app: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Serve the app; yield reader and writer of a connection to it."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=BoundedConnection, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    reader, writer = await asyncio.open_connection(*listening.getsockname(), limit=2**16)
    try:
        yield reader, writer
    finally:
        writer.close()
        server.should_exit = True
        await task


async def _read_all(reader: Any) -> int:
    total = 0
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(MIB):
            total += len(part)
    return total


def test_who_does_not_read_its_answer_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel would keep such a connection for ever, and the service takes only 500."""
    monkeypatch.setattr(module, "_READ_WITHIN_S", 0.2)

    async def scenario() -> None:
        app = _App(64)
        async with asyncio.timeout(30), _served(app) as (reader, writer):
            writer.write(REQUEST)
            await app.ended.wait()  # later parts are dropped
            assert await _read_all(reader) < 64 * MIB

    asyncio.run(scenario())


def test_who_reads_slowly_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_READ_WITHIN_S", 5.0)

    async def scenario() -> None:
        app = _App(32)
        async with asyncio.timeout(30), _served(app) as (reader, writer):
            writer.write(REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            assert await _read_all(reader) > 32 * MIB
            assert app.sent == 32

    asyncio.run(scenario())


def test_a_request_that_came_before_the_last_answer_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its deadline must be cancelled; once it closed the connection during the answer."""
    monkeypatch.setattr(module, "_REQUEST_WITHIN_S", 0.2)

    async def scenario() -> None:
        app = _App(0)

        async def second(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.sleep(0.5)  # longer than the deadline of a request
            await app(scope, receive, send)

        answers: Iterator[Any] = iter([app, second])

        async def each(scope: Any, receive: Any, send: Any) -> None:
            await next(answers)(scope, receive, send)

        async with asyncio.timeout(30), _served(each) as (reader, writer):
            writer.write(REQUEST + REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            content = b""
            with contextlib.suppress(ConnectionError):
                while part := await reader.read(MIB):
                    content += part
            assert content.count(b"200 OK") == 2

    asyncio.run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="connections are counted in /proc")
def test_a_port_that_is_full_is_told_until_it_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "cluster.service.crowding")

    class Keeper:
        state, folder = "up", ""

        async def agent_answers(self, seconds: float) -> bool:
            return True

    async def scenario() -> None:
        async with scripted(tmp_path / "home") as service:
            keeper: Any = Keeper()
            health = Health(service.jobs, keeper)
            with socket.create_server(("127.0.0.1", 0)) as listening:
                crowding = health.crowding = Crowding([Port("gRPC", listening.getsockname()[1], 2)])
                with contextlib.ExitStack() as undo:
                    for n in range(2):
                        await crowding.look()
                        assert not crowding.problems, n
                        undo.enter_context(socket.create_connection(listening.getsockname()))
                        undo.enter_context(listening.accept()[0])
                    await crowding.look()
                    told = "gRPC has 2 connections, its limit; further ones are closed at once"
                    assert (await health.look())["problems"] == [told]
                    await crowding.look()
                await crowding.look()
                assert (await health.look())["ok"]
            assert caplog.messages == [told, "there is room for connections again"]

    asyncio.run(scenario())
