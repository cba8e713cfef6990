"""Protect the HTTP port. It listens on loopback, where other users of the machine can reach it, and so can any web page
in the user's own browser.

Other users: the kernel reports which user a connection belongs to (`peer`). Only the user who owns the home may read.
Pages of other sites have four ways in:
- One can let its own host name point to 127.0.0.1 and then read answers. The Host header shows that name.
- It can send POSTs and open websockets from its own origin. The Origin header shows that origin.
- It can load our pages again and again, as pictures or scripts of its own. Browsers report what a request is for
  (Sec-Fetch-…), and the guard rejects a request of another site unless it opens a page of ours in a window.
- It can put our pages into a frame and make a reader click their buttons. Our headers make browsers refuse frames, and
  requests of our pages to other hosts.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.dashboard.bodies import bounded, refusal_of_body
from cluster.dashboard.peer import NOBODY, user_of

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SAFE = ("GET", "HEAD", "OPTIONS")
_OPEN = ("/healthz", "/metrics")
"""Open to every user of the machine, for monitoring."""
_ELSEWHERE = ("cross-site", "same-site")  # another port of this host is the same site
_ROOT = 0
_POLICY_VIOLATION = 1008
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; "
        b"form-action 'self'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """ASGI middleware that rejects requests of other users, of pages of other sites, and of scripts that would change
    something without the token. `names` are the host names, without ports, that the Host header may have."""

    def __init__(self, app: ASGIApp, *, names: Iterable[str], token: str) -> None:
        self._app, self._names, self._token = app, frozenset(name.lower() for name in names), token
        self._users: WeakKeyDictionary[Any, int | None] = WeakKeyDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 400, 401, 403 or 413."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        by_another = not is_open(scope["path"]) and await self._user(scope, receive) not in (None, _ROOT, os.getuid())
        found = refusal(scope, self._names, self._token, by_another)
        if found is None and scope["type"] == "http":
            too_large = refusal_of_body(scope)
            found = None if too_large is None else (413, too_large)
            receive = bounded(scope, receive)
        if found is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": found[1][:100]})
        else:
            status, text = found
            wanted = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
            await JSONResponse({"problems": [text]}, status, wanted)(scope, receive, send)

    async def _user(self, scope: Scope, receive: Receive) -> int | None:
        """Return the user of the calling process, see `user_of`. It is looked up once for each connection and kept with
        the connection's own object, because another user may have its ports a moment after it is closed."""
        connection = getattr(getattr(receive, "__self__", None), "transport", None)
        with contextlib.suppress(KeyError, TypeError):
            return self._users[connection]
        user = await asyncio.to_thread(user_of, scope.get("client"), scope.get("server"))
        if user != NOBODY:
            with contextlib.suppress(TypeError):  # None, or an object without weak references
                self._users[connection] = user
        return user


def refusal(scope: Mapping[str, Any], names: Iterable[str], token: str, by_another: bool) -> tuple[int, str] | None:
    """Return the status and the reason for a request that is rejected; None if it may pass. `by_another`: another user
    of this machine may have sent it."""
    headers = Headers(scope=dict(scope))
    host = headers.get("host", "")
    if _name(host) not in names:
        return 400, f"Host: got {host[:100]!r}, must be one of this service's names: {', '.join(sorted(names))}"
    path = scope["path"]
    if is_open(path):
        return None
    if headers.get("sec-fetch-site") in _ELSEWHERE and not _opens_window(headers):
        return 403, "Sec-Fetch-Site: a page of another site sent this request; it may only have a link to this service"
    origin = headers.get("origin")
    if scope["type"] == "websocket" or scope["method"] not in _SAFE:
        if origin is not None and not _same_site(origin, host):
            return 403, f"Origin: got {origin[:100]!r}, only pages of this service ({host}) may do that"
        if origin is None and path.startswith("/_nicegui"):  # browsers name the origin of a websocket and of a POST
            return 403, "Origin: missing; pages are for browsers, and /api is for scripts"
    elif not by_another:
        return None
    shown = headers.get("authorization", "").encode()
    if hmac.compare_digest(shown, f"Bearer {token}".encode()):
        return None
    if by_another:
        return 401, "authorization: missing or wrong; the service belongs to another user of this machine"
    if origin is not None:
        return None
    return 401, (
        "authorization: missing or wrong; a script that changes something must send `Authorization: Bearer TOKEN`, "
        "with the token from the file `token` in the service's home"
    )


def _opens_window(headers: Headers) -> bool:
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"


def _same_site(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:  # brackets around something that is no address
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def is_open(path: str) -> bool:
    """Whether every user of this machine may request this path."""
    return path in _OPEN


def _name(host: str) -> str:
    """Return the name or address in a Host header, without port and brackets."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await send(message)

    return with_headers
