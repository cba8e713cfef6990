"""How much of a request's body is read: little, but where a body is a job. What has more is refused before it is read
if it says so, and where the limit is passed if it does not."""

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
    """The limit of a body."""
    if method == "POST" and path.rstrip("/") == "/api/jobs":
        return 2 * MAX_DOCUMENT_BYTES  # as JSON writes it, with escapes
    return MOST_FROM_A_PAGE_BYTES if path.startswith("/_nicegui_ws/") else _SMALL_BYTES


def refusal_of_body(scope: Scope) -> str | None:
    """What is said of a body that is announced as too large, or as nonsense; None for one that may be read."""
    announced = Headers(scope=scope).get("content-length", "0")
    most = most_bytes(scope["method"], scope["path"])
    if announced.isascii() and announced.isdigit() and int(announced[:20]) <= most:
        return None
    return _too_large(most)


def bounded(scope: Scope, receive: Receive) -> Receive:
    """The body's parts, up to the limit. Raises HTTPException 413 beyond it, 408 if the caller falls silent."""
    most, received, whole = most_bytes(scope["method"], scope["path"]), 0, False

    async def part() -> Message:
        nonlocal received, whole
        if whole:  # what is waited for then is the caller's leaving
            return await receive()
        try:
            async with asyncio.timeout(_SILENCE_S):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, f"body: nothing came for {_SILENCE_S:g} s") from None
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > most:
                raise HTTPException(413, _too_large(most))
        return message

    return part


def _too_large(most: int) -> str:
    return f"body: must have at most {most:,} bytes"
