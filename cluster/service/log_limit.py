"""Limits how many lines a minute each place of the program logs, so that callers cannot fill the disk with the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_MOST = 60
_WITHIN_S = 60.0


class AtMost(logging.Filter):
    """A filter that passes at most `most` records in `within_s` seconds from each line of the program that logs. The
    first record of the next period says how many were left out."""

    def __init__(
        self, most: int = _MOST, within_s: float = _WITHIN_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._most, self._within_s, self._clock = most, within_s, clock
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this record is logged."""
        place, now = (record.pathname, record.lineno), self._clock()
        since, seen = self._seen.get(place, (now, 0))
        if now - since >= self._within_s:
            left_out, since, seen = max(0, seen - self._most), now, 0
            if left_out:
                record.msg, record.args = f"{record.getMessage()} (and {left_out:,} such lines before)", ()
        self._seen[place] = (since, seen + 1)
        return seen < self._most
