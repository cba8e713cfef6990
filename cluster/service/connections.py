"""Limits of the HTTP port: the number of connections, and how long a connection may be idle or unread."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 500
MOST_FROM_A_PAGE_BYTES = 2 * 2**20
"""The largest message that a page sends: over its websocket, or by POST without one."""
_REQUEST_WITHIN_S = 20.0
_READ_WITHIN_S = 60.0
"""If the send buffer is full, the caller must read at least 48 KiB (from "full" to "has room again") in this time."""
_MOST_UNREAD_BYTES = 2 * 2**20
"""The service discards this many bytes of a refused body, so that its sender gets to reading the answer."""


class BoundedConnection(H11Protocol):  # type: ignore[misc]  # uvicorn is not checked
    """Uvicorn's connection (headers of at most 64 KiB) that is closed unless a whole request arrives within
    `_REQUEST_WITHIN_S` seconds, and if the caller stops reading the answer."""

    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _thrown_away = 0

    def connection_made(self, transport: Any) -> None:
        """Accept the connection, or close it if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """Handle a part of a request, or all of it."""
        super().data_received(data)
        if self.cycle is None:
            return
        if not self.cycle.response_complete:
            self._stop_waiting()
        elif self.cycle.more_body and not self.transport.is_closing():
            self._thrown_away += len(data)
            if self._thrown_away > _MOST_UNREAD_BYTES:
                self.transport.abort()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if self.cycle.response_complete:  # else the next request has already arrived, and is being answered
            self._await_request()
        else:
            self._stop_waiting()

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Hand the connection to the websocket protocol, without a deadline."""
        self._stop_waiting()
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        """Close the connection if its caller does not read for too long; the kernel would keep it for ever."""
        super().pause_writing()
        self._unread = self.loop.call_later(_READ_WITHIN_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Cancel that: the caller reads again."""
        super().resume_writing()
        self._stop_unread()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel all deadlines."""
        self._stop_waiting()
        self._stop_unread()
        super().connection_lost(exc)

    def _await_request(self) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(_REQUEST_WITHIN_S, self.transport.abort)

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
