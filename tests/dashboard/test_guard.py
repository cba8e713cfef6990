"""Which requests the HTTP port turns away."""

from __future__ import annotations

import os
import socket
import socketserver
from typing import Any

import pytest

from cluster.dashboard.guard import LOOPBACK, refusal
from cluster.dashboard.peer import user_of

TOKEN = "0123"
HOME = {"host": "127.0.0.1:7071"}
OURS = {**HOME, "origin": "http://127.0.0.1:7071"}
THEIRS = {**HOME, "origin": "https://elsewhere.example"}
SCRIPT = {**HOME, "authorization": f"Bearer {TOKEN}"}


def status(
    headers: dict[str, str], method: str = "GET", path: str = "/api/jobs", kind: str = "http", **more: Any
) -> int | None:
    scope: dict[str, Any] = {
        "type": kind,
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        **more,
    }
    found = refusal(scope, LOOPBACK, TOKEN)
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


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user for a moment")
def test_another_user_of_the_machine_needs_the_token() -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
        port = server.server_address[1]
        for user, wanted in ((0, None), (65534, 401)):
            os.seteuid(user)
            try:
                theirs = socket.create_connection(("127.0.0.1", port))
            finally:
                os.seteuid(0)
            with theirs:
                more = {"client": theirs.getsockname(), "server": ("127.0.0.1", port)}
                assert user_of(more["client"], more["server"]) == user
                assert status(HOME, **more) == wanted
                assert status(OURS, "POST", **more) == wanted
                assert status(OURS, path="/_nicegui_ws/socket.io/", kind="websocket", **more) == wanted
                assert status(HOME, path="/metrics", **more) is None
                assert status(SCRIPT, **more) is None
                assert status(SCRIPT, "POST", **more) is None


def test_who_is_on_another_host_is_not_known() -> None:
    assert user_of(("192.0.2.7", 1234), ("192.0.2.1", 7071)) is None
    assert user_of(("not an address", 1234), ("127.0.0.1", 7071)) is None
