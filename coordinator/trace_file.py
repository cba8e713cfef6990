"""A file of trace events, written in parts, so that a long trace takes little memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

import orjson

_EVENTS_A_PART = 4096


class EventFile:
    """Chrome's JSON object format: `traceEvents`, and what is known at the end in `otherData`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._part: list[str] = []
        self._separator = b"\n"
        self._ids = 0
        file.write(b'{"displayTimeUnit":"ms","traceEvents":[')

    def add(self, event: Mapping[str, Any]) -> None:
        """Write an event."""
        self.add_json(orjson.dumps(event).decode())

    def add_json(self, event: str) -> None:
        """Write an event that is JSON already: several times faster, for those of which there are many."""
        self._part.append(event)
        if len(self._part) == _EVENTS_A_PART:
            self._flush()

    def next_id(self) -> int:
        """A number that no other arrow of the file has."""
        self._ids += 1
        return self._ids

    def close(self, other: Mapping[str, Any]) -> None:
        """Write the end. The file itself stays open."""
        self._flush()
        self._file.write(b'\n],"otherData":' + orjson.dumps(other) + b"}\n")

    def _flush(self) -> None:
        if self._part:
            self._file.write(self._separator + ",".join(self._part).encode())
            self._part.clear()
            self._separator = b",\n"
