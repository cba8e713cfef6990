"""Connections of the HTTP port: so many and no more, and each with a request before long."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 500
MOST_FROM_A_PAGE_BYTES = 2 * 2**20
"""What a page sends at once: a message of its websocket, or by POST if it has none."""
_REQUEST_WITHIN_S = 20.0
_READ_WITHIN_S = 60.0
"""Of an answer, more than the 48 KiB that are between "full" and "has room again" in what waits to be sent."""
_MOST_UNREAD_BYTES = 2 * 2**20
"""Of a body that was refused: so much is thrown away, so that its sender comes to read the answer."""


class BoundedConnection(H11Protocol):  # type: ignore[misc]  # uvicorn is not checked
    """Uvicorn's own, whose headers have at most 64 KiB. Unless a whole request comes soon, it is closed; so it is if
    the answer is not read."""

    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _thrown_away = 0

    def connection_made(self, transport: Any) -> None:
        """Take it in, or close it where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """A part of a request, or all of it."""
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
        """The next request may come."""
        super().on_response_complete()
        if self.cycle.response_complete:  # else the next one had come already, and is being answered
            self._await_request()
        else:
            self._stop_waiting()

    def handle_websocket_upgrade(self, event: Any) -> None:
        """It is another protocol's from here on."""
        self._stop_waiting()
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        """Its caller does not read for now; the kernel would keep such a connection for ever."""
        super().pause_writing()
        self._unread = self.loop.call_later(_READ_WITHIN_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        self._stop_unread()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited of it any more."""
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
