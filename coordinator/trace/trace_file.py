"""A file of trace events that viewers can open at any time: while it grows, and after its writer was killed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

import orjson

_EVENTS_A_PART = 4096


class EventFile:
    """A file in Chrome's JSON array format: viewers accept it without its closing bracket. They reject an object format
    that is cut short."""

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
        """Write an event that is JSON already: several times faster, for frequent events."""
        self._part.append(event)
        if len(self._part) == _EVENTS_A_PART:
            self._write()

    def next_id(self) -> int:
        """A number that no other arrow of the file has."""
        self._ids += 1
        return self._ids

    def flush(self) -> None:
        """Pass everything so far to the operating system, so that it survives the death of this process."""
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
