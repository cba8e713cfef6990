"""Limits of the size of request bodies: small, except for a body that is a job. A request whose Content-Length is too
large is rejected before its body is read; another one when its body passes the limit."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

from cluster.service.connections import MOST_FROM_A_PAGE_BYTES
from coordinator.job.limits import MAX_DOCUMENT_BYTES

_SMALL_BYTES = 64 * 1024
_SILENCE_S = 30.0


def most_bytes(method: str, path: str) -> int:
    """Return the largest allowed body of such a request, in bytes."""
    if method == "POST" and path.rstrip("/") == "/api/jobs":
        return 2 * MAX_DOCUMENT_BYTES  # JSON's escapes make it longer
    return MOST_FROM_A_PAGE_BYTES if path.startswith("/_nicegui_ws/") else _SMALL_BYTES


def refusal_of_body(scope: Scope) -> str | None:
    """Return the error for a Content-Length that is too large or no number; None if the body may be read."""
    announced = Headers(scope=scope).get("content-length", "0")
    most = most_bytes(scope["method"], scope["path"])
    if announced.isascii() and announced.isdigit() and int(announced[:20]) <= most:
        return None
    return _too_large(most)


def bounded(scope: Scope, receive: Receive) -> Receive:
    """Limit `receive` to the largest allowed body. It raises HTTPException 413 beyond that, 408 if the caller sends
    nothing for too long."""
    most, received, whole = most_bytes(scope["method"], scope["path"]), 0, False

    async def part() -> Message:
        nonlocal received, whole
        if whole:  # the only message after the body is that the caller disconnects, which may take long
            return await receive()
        try:
            async with asyncio.timeout(_SILENCE_S):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, f"body: nothing arrived for {_SILENCE_S:g} s") from None
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > most:
                raise HTTPException(413, _too_large(most))
        return message

    return part


def _too_large(most: int) -> str:
    return f"body: must have at most {most:,} bytes"
