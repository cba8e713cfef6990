"""The cost of callers without the token: the service's memory does not grow, and callers with the token get answers.

Once, 20 connections that sent 32 MiB each took 3 GB.
"""

from __future__ import annotations

import http.client
import struct
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from cluster.wire import pipetrain_pb2 as pb
from cluster.wire.limits import MAX_REQUEST_BYTES
from cluster.wire.pipetrain_pb2_grpc import PipetrainStub
from tests.service.running import wait_for
from tests.service_units.bare_service import TOKEN
from tests.service_units.strangers import Bare, Dribble, bare_service, flood, send_messages

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the memory of another process is read from /proc"),
    pytest.mark.timeout(300),
]
ROOM = 200 * 2**20
METHOD = "/pipetrain.v1.Pipetrain/"
WITH_TOKEN = (("authorization", f"Bearer {TOKEN}"),)


@pytest.fixture(scope="module")
def bare() -> Iterator[Bare]:
    with bare_service() as found:
        assert _answers(found)
        yield found


def _answers(bare: Bare) -> bool:
    """Whether a caller with the token gets answers on both ports. gRPC may finish the strangers' calls first."""
    with grpc.insecure_channel(f"127.0.0.1:{bare.grpc_port}") as channel:
        stub = PipetrainStub(channel)  # type: ignore[no-untyped-call]
        wait_for(lambda: _called(stub.Stats), "whoever has the token is not answered")
    connection = http.client.HTTPConnection("127.0.0.1", bare.http_port, timeout=30)
    connection.request("POST", "/x", body=b"abc", headers={"Authorization": WITH_TOKEN[0][1]})
    answer = connection.getresponse()
    found = (answer.status, answer.read())
    connection.close()
    return found == (200, b"3")


def _called(method: Any) -> bool:
    try:
        method(pb.StatsRequest(), metadata=WITH_TOKEN, timeout=30)
    except grpc.RpcError:
        return False
    return True


@pytest.mark.parametrize("method", ["Submit", "Watch"])
def test_large_messages_without_the_token_are_not_read(bare: Bare, method: str) -> None:
    with bare.memory_within(ROOM):
        codes = send_messages(bare.grpc_port, METHOD + method, connections=200, calls=1, n_bytes=4 * 2**20)
    assert codes.keys() <= {"UNAUTHENTICATED", "CANCELLED"}, codes
    assert codes["UNAUTHENTICATED"] >= 200
    assert _answers(bare)


def test_large_messages_to_health_checks_are_not_read_either(bare: Bare) -> None:
    """grpcio keeps the memory of a message with its connection: reading one after another took 0.9 MB of each."""
    with bare.memory_within(64 * 2**20):
        codes = send_messages(
            bare.grpc_port, "/grpc.health.v1.Health/Check", connections=200, calls=5, n_bytes=MAX_REQUEST_BYTES
        )
    assert codes.keys() <= {"OK", "RESOURCE_EXHAUSTED", "CANCELLED"}, codes
    assert _answers(bare)


def test_a_health_check_without_the_token_is_of_the_service_as_a_whole(bare: Bare) -> None:
    """The name in its request is not read. With the token, an unknown name gives an error."""
    asked = health_pb2.HealthCheckRequest(service="nobody")
    with grpc.insecure_channel(f"127.0.0.1:{bare.grpc_port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(asked, timeout=30).status == health_pb2.HealthCheckResponse.SERVING
        watching = stub.Watch(asked, timeout=30)
        assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
        watching.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(asked, timeout=30, metadata=WITH_TOKEN)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("method", [f"{METHOD}Submit", "/grpc.health.v1.Health/Check"])
def test_messages_that_come_slowly_and_answers_that_are_not_read_hold_little(bare: Bare, method: str) -> None:
    with bare.memory_within(ROOM), Dribble(bare.grpc_port, method, connections=200, calls=100) as dribble:
        dribble.go_on(1.0)
        assert dribble.sent > 5_000_000
    assert _answers(bare)


def test_the_port_takes_so_many_connections_and_no_more(bare: Bare) -> None:
    before = bare.connections()
    with bare.memory_within(ROOM), Dribble(bare.grpc_port, f"{METHOD}Submit", connections=1300, calls=1) as dribble:
        held = [0]

        def settled() -> bool:
            """Whether the connections above the limit are closed."""
            dribble.go_on(0.1)
            held.append(bare.connections() - before)
            return dribble.open <= 1000

        wait_for(settled, "more connections than the port takes stay open")
        assert 500 < max(held) <= 1000
    wait_for(lambda: bare.connections() < before + 100, "connections that were left stay")
    assert _answers(bare)


HOST = b"Host: 127.0.0.1\r\n"
MIB = b"x" * 2**20
FLOODS = {
    "a body without the token": (b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999\r\n\r\n", MIB, {b"401"}),
    "a body of no known length": (
        b"POST /metrics HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
        b"100000\r\n" + MIB + b"\r\n",
        {b"413"},
    ),
    "a body for an open path": (
        b"POST /healthz HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999\r\n\r\n",
        MIB,
        {b"413"},
    ),
    "headers without end": (
        b"GET /healthz HTTP/1.1\r\n" + HOST,
        b"X-Header: " + b"x" * 2**16 + b"\r\n",
        {b"400", b"431"},
    ),
    "a line without end": (b"GET /", MIB, {b"400", b"414"}),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_http_reads_little_of_what_strangers_send(bare: Bare, kind: str) -> None:
    content, part, refusals = FLOODS[kind]
    with bare.memory_within(ROOM):
        answers = flood(bare.http_port, content, part, connections=40, parts=20)
    assert {line.split()[1] for line in answers if line} <= refusals, set(answers)
    assert _answers(bare)


def test_a_websocket_takes_no_large_message(bare: Bare) -> None:
    with connect(
        f"ws://127.0.0.1:{bare.http_port}/ws", additional_headers={"Authorization": WITH_TOKEN[0][1]}
    ) as connection:
        connection.send("x" * 2**20)
        assert connection.recv() == str(2**20)
        # only its announcement: if a message is on its way, the kernel may throw the service's last answer away
        connection.socket.sendall(struct.pack(">BBQ", 0x81, 0xFF, 3 * 2**20) + b"mask")
        with pytest.raises(ConnectionClosedError, match="1009"):
            connection.recv()
    assert _answers(bare)
