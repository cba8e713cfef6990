"""The request to end a run, and how long the run may still take."""

from __future__ import annotations

import time
from collections.abc import Callable

from stages.errors import GraceOver


class Ending:
    """Whether a run is asked to end, and until when. Any thread may call. Times are in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: float | None = None

    @property
    def asked(self) -> bool:
        """Whether the run is asked to end."""
        return self._until is not None

    def ask(self, within_s: float) -> None:
        """Ask the run to end within so many seconds. A later request can only shorten the time."""
        until = self._clock() + within_s
        self._until = until if self._until is None else min(self._until, until)

    @property
    def is_over(self) -> bool:
        """Whether the run was asked to end, and the time has passed."""
        return self._until is not None and self._clock() >= self._until

    def require_time(self) -> None:
        """Raise GraceOver if the time has passed."""
        if self.is_over:
            raise GraceOver("the run was stopped, and did not save its state within its grace")
