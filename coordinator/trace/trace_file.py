"""A file of trace events that opens in a viewer at any time: while it grows, and if its writer was killed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

import orjson

_EVENTS_A_PART = 4096


class EventFile:
    """Chrome's JSON array format, whose closing bracket viewers do without. The object format they refuse if it is cut
    short."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._part: list[str] = []
        self._separator = b"\n"
        self._ids = 0
        file.write(b"[")

    def add(self, event: Mapping[str, Any]) -> None:
        """Write an event."""
        self.add_json(orjson.dumps(event).decode())

    def add_json(self, event: str) -> None:
        """Write an event that is JSON already: several times faster, for those of which there are many."""
        self._part.append(event)
        if len(self._part) == _EVENTS_A_PART:
            self._write()

    def next_id(self) -> int:
        """A number that no other arrow of the file has."""
        self._ids += 1
        return self._ids

    def flush(self) -> None:
        """Hand everything so far to the operating system: it outlives this process."""
        self._write()
        self._file.flush()

    def close(self) -> None:
        """Write the end. The file itself stays open."""
        self._write()
        self._file.write(b"\n]\n")
        self._file.flush()

    def _write(self) -> None:
        if self._part:
            self._file.write(self._separator + ",\n".join(self._part).encode())
            self._part.clear()
            self._separator = b",\n"
