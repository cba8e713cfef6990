"""Checks every entry of a job's document before it is parsed: the number of entries, their depth, their texts."""

from __future__ import annotations

from typing import Any

from coordinator.job.limits import MAX_DEPTH, MAX_ENTRIES, MAX_TEXT, encodable
from coordinator.job.problems import Path, path_text, show

_RIGHT = "must be text that UTF-8 can hold, without half of a surrogate pair"


def too_much(document: object) -> str | None:
    """Return the problem of a document that has too many entries or is nested too deeply; None if it has neither.

    The check stops at the limit, however much the document's aliases multiply.
    """
    n_entries = 1
    level: list[object] = [document]
    for _ in range(MAX_DEPTH):
        inner: list[object] = []
        for value in level:
            if isinstance(value, (dict, list, tuple)):
                inner.extend(value.values() if isinstance(value, dict) else value)
                n_entries += len(value)
                if n_entries > MAX_ENTRIES:
                    return f"the job has more than {MAX_ENTRIES:,} entries; an alias counts as all that it stands for"
        if not inner:
            return None
        level = inner
    return f"the job has lists or mappings more than {MAX_DEPTH} deep within each other"


def wrong_texts(document: object) -> list[tuple[Path, str]]:
    """Return the path and the problem of each text or key that is too long or cannot be stored. The document must have
    passed `too_much`."""
    found: list[tuple[Path, str]] = []
    waiting: list[tuple[object, Any]] = [(document, ())]
    while waiting:
        value, place = waiting.pop()
        if isinstance(value, str):
            if wrong := _wrong(value):
                path = _path(place)
                found.append((path, f"{path_text(path)}: got {show(value)}, {wrong}"))
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(key, str) and (wrong := _wrong(key)):
                    path = _path(place)
                    found.append(((*path, key), f"{path_text(path)}: got the key {show(key)}, {wrong}"))
                waiting.append((inner, (place, key)))
        elif isinstance(value, (list, tuple)):
            waiting.extend((inner, (place, number)) for number, inner in enumerate(value))
    return found[::-1]


def _wrong(text: str) -> str:
    if len(text) > MAX_TEXT:
        return f"must have at most {MAX_TEXT:,} characters, it has {len(text):,}"
    return "" if text.isascii() or encodable(text) else _RIGHT


def _path(place: Any) -> Path:
    parts: list[str | int] = []
    while place:
        place, part = place
        parts.append(part if isinstance(part, (str, int)) else str(part))
    return tuple(reversed(parts))
