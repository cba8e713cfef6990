"""The requests that the HTTP port rejects."""

from __future__ import annotations

import http.client
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from cluster.dashboard import guard
from cluster.dashboard.guard import LOOPBACK, Guard, refusal
from cluster.dashboard.peer import NOBODY, user_of
from tests.service.running import wait_for

TOKEN = "0123"
HOME = {"host": "127.0.0.1:7071"}
OURS = {**HOME, "origin": "http://127.0.0.1:7071"}
THEIRS = {**HOME, "origin": "https://elsewhere.example"}
SCRIPT = {**HOME, "authorization": f"Bearer {TOKEN}"}


def status(
    headers: dict[str, str],
    method: str = "GET",
    path: str = "/api/jobs",
    kind: str = "http",
    by_another: bool = False,
) -> int | None:
    scope: dict[str, Any] = {
        "type": kind,
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    found = refusal(scope, LOOPBACK, TOKEN, by_another)
    return None if found is None else found[0]


@pytest.mark.parametrize("host", ["127.0.0.1:7071", "localhost:7071", "LOCALHOST", "[::1]:7071", "127.0.0.1"])
def test_the_names_of_loopback_are_ours(host: str) -> None:
    assert status({"host": host}) is None


@pytest.mark.parametrize(
    "host", ["", "elsewhere.example", "elsewhere.example:7071", "127.0.0.1.elsewhere.example", "[::2]"]
)
def test_another_name_that_points_here_is_turned_away(host: str) -> None:
    assert status({"host": host}) == 400
    assert status({"host": host, "authorization": f"Bearer {TOKEN}"}, "POST") == 400
    assert status({"host": host, "origin": f"http://{host}"}, kind="websocket") == 400


def test_anybody_here_reads() -> None:
    assert status(HOME) is None
    assert status(THEIRS) is None, "the browser does not show the answer to that page"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_only_our_pages_and_scripts_with_the_token_change_something(method: str) -> None:
    assert status(OURS, method) is None
    assert status(SCRIPT, method) is None
    assert status(THEIRS, method) == 403
    assert status({**THEIRS, "authorization": f"Bearer {TOKEN}"}, method) == 403
    assert status({**HOME, "origin": "null"}, method) == 403
    assert status({**HOME, "origin": "http://127.0.0.1:9999"}, method) == 403, "another port is another site"
    assert status(HOME, method) == 401
    assert status({**HOME, "authorization": "Bearer 9999"}, method) == 401


def test_only_our_pages_open_websockets() -> None:
    path = "/_nicegui_ws/socket.io/"
    assert status(OURS, path=path, kind="websocket") is None
    assert status(THEIRS, path=path, kind="websocket") == 403
    assert status(HOME, path=path, kind="websocket") == 403
    assert status(SCRIPT, "POST", path) == 403, "pages are for browsers"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_elsewhere_leads_here_by_a_link_and_has_nothing_made(site: str) -> None:
    """Another site could use the address of our page as that of a picture, and so make the service build the page as
    often as that site likes."""

    def asks(mode: str, dest: str, **more: str) -> int | None:
        return status(
            {**HOME, "sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest, **more}, path="/"
        )

    assert asks("navigate", "document") is None
    assert asks("no-cors", "image") == 403
    assert asks("no-cors", "script") == 403
    assert asks("navigate", "iframe") == 403
    assert asks("cors", "empty", origin="http://elsewhere.example") == 403
    assert status({**HOME, "sec-fetch-site": site, "sec-fetch-mode": "no-cors"}, path="/healthz") is None
    for own in ("same-origin", "none"):
        assert status({**HOME, "sec-fetch-site": own, "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}) is None


@pytest.mark.parametrize("origin", ["http://[", "http://[x]", "null"])
def test_an_origin_that_is_no_url_is_turned_away(origin: str) -> None:
    assert status({**HOME, "origin": origin}, "POST") == 403


def test_another_user_of_the_machine_needs_the_token_for_everything() -> None:
    for headers in (HOME, OURS):
        assert status(headers, by_another=True) == 401
        assert status(headers, "POST", by_another=True) == 401
    assert status(OURS, path="/_nicegui_ws/socket.io/", kind="websocket", by_another=True) == 401
    for path in ("/assets/dashboard.css", "/_nicegui/no-such-file", "/favicon.ico"):
        assert status(HOME, path=path, by_another=True) == 401, (
            "each missing file would cost a page and a line of the log"
        )
    assert status(HOME, path="/metrics", by_another=True) is None
    assert status(SCRIPT, by_another=True) is None
    assert status(SCRIPT, "POST", by_another=True) is None


def test_who_is_on_another_host_is_not_known() -> None:
    assert user_of(("192.0.2.7", 1234), ("192.0.2.1", 7071)) is None


class Served:
    """A guarded app at a port, in a thread. `reached` has the methods of the requests that passed the guard."""

    def __init__(self) -> None:
        self.reached: list[str] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.end = self._listening.getsockname()
        config = uvicorn.Config(Guard(self._answer, names=LOOPBACK, token=TOKEN), lifespan="off", log_level="warning")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._listening],))
        self._thread.start()
        wait_for(lambda: self._server.started, "it never answers")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached.append(scope["method"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.end[1], timeout=20)
        connection.connect()
        return connection

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._listening.close()


@pytest.fixture
def served() -> Iterator[Served]:
    found = Served()
    yield found
    found.close()


def asked(connection: http.client.HTTPConnection, method: str = "GET", **headers: str) -> int:
    connection.request(method, "/api/jobs", headers=headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the user of a connection")


@linux
@pytest.mark.parametrize("reset", [False, True])
def test_who_closes_its_socket_after_asking_is_taken_for_another_user(
    served: Served, reset: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, closed, looked = threading.Event(), threading.Event(), threading.Event()
    found: list[int | None] = []

    def look_late(client: Any, server: Any) -> int | None:
        looks.set()
        closed.wait(20)
        found.append(user_of(client, server))
        looked.set()
        return found[-1]

    monkeypatch.setattr(guard, "user_of", look_late)
    host = f"127.0.0.1:{served.end[1]}"
    with socket.create_connection(served.end) as caller:
        if reset:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        lines = ("POST /api/jobs HTTP/1.1", f"Host: {host}", f"Origin: http://{host}", "Content-Length: 0")
        caller.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode())
        assert looks.wait(20)
    closed.set()
    assert looked.wait(20)
    assert found == [NOBODY]
    assert asked(served.connect(), "POST", Authorization=f"Bearer {TOKEN}") == 200
    assert served.reached == ["POST"], "the request of the closed socket was performed"


@linux
def test_a_caller_without_an_address_is_taken_for_another_user(served: Served) -> None:
    assert user_of(None, served.end) == NOBODY
    assert user_of(("127.0.0.1", 1), served.end) == NOBODY, "there is no such connection"


@linux
def test_whose_a_connection_is_is_looked_up_once(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Any] = []

    def look(client: Any, server: Any) -> int | None:
        looked.append(client)
        return user_of(client, server)

    monkeypatch.setattr(guard, "user_of", look)
    first, second = served.connect(), served.connect()
    assert [asked(first), asked(first), asked(second), asked(first)] == [200] * 4
    assert looked == [first.sock.getsockname(), second.sock.getsockname()]


@linux
@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user for a moment")
def test_a_connection_of_another_user_is_told_from_ours(served: Served) -> None:
    for user, wanted in ((0, 200), (65534, 401)):
        os.seteuid(user)
        try:
            connection = served.connect()
        finally:
            os.seteuid(0)
        assert user_of(connection.sock.getsockname(), served.end) == user
        origin = f"http://127.0.0.1:{served.end[1]}"
        assert asked(connection) == wanted
        assert asked(connection, "POST", Origin=origin) == wanted
        assert asked(connection, Authorization=f"Bearer {TOKEN}") == 200
