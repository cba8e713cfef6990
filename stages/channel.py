"""The port that carries arrays between workers, and its form inside one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from stages.actions import Kind
from stages.arrays import Array


class Tag(NamedTuple):
    """What an array is: the input of `stage`'s forward (F) or backward (I) action of a micro-batch; or, of a tied
    weight, the gradient of operation `micro_batch` for the owner's stage (W), or the new value for the user's (B).

    `round` counts the steps and evaluations of a run, so that a worker may be a step ahead of its neighbour.
    """

    round: int
    stage: int
    kind: Kind
    micro_batch: int

    def __str__(self) -> str:
        if self.kind in (Kind.BACKWARD_WEIGHT, Kind.BACKWARD):
            what = "gradient" if self.kind is Kind.BACKWARD_WEIGHT else "value"
            return f"{what} of a tied weight for stage {self.stage}"
        what = "activations" if self.kind is Kind.FORWARD else "gradients"
        return f"{what} for {self.stage}{self.kind}{self.micro_batch}"


class ReceiveTimeout(Exception):
    """Nothing came within the limit. Mostly an echo: some other worker is the cause."""


class ChannelClosed(Exception):
    """The run was ended while a worker waited."""


class Attendance:
    """How long a worker goes on waiting. While somebody looks after it and decides who hangs, as long as it takes; if
    nobody has asked for `limit_s` seconds, whoever gives the orders is gone."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_s, self.now = limit_s, clock
        self._asked = clock()

    def asked(self) -> None:
        """Somebody looks after the worker. Any thread may say so."""
        self._asked = self.now()

    def left(self, since: float) -> float:
        """Seconds that a wait begun at `since`, a time of `now`, may still take."""
        return max(since, self._asked) + self.limit_s - self.now()


def unattended_limit(hang_timeout: float) -> float:
    """Seconds that a worker waits though nobody asks: whoever gives the orders may be held up for a while itself."""
    return max(2 * hang_timeout, 300.0)


class Channel(Protocol):
    """Carries arrays to other workers, in any order of arrival."""

    def send(self, worker: int, tag: Tag, array: Array) -> None:
        """Send `array` to `worker`. It is copied: the caller may change it at once."""

    def receive(self, tag: Tag) -> Array:
        """The array sent under `tag`; it may be read-only. Raises ReceiveTimeout, ChannelClosed."""


class LocalExchange:
    """The meeting point of workers that are threads of one process. `timeout_s` is how long a receive may take while
    nobody attends (see Attendance)."""

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.attendance = Attendance(timeout_s, clock)
        self._changed = threading.Condition()
        self._arrays: dict[Tag, Array] = {}
        self._closed = False

    def send(self, worker: int, tag: Tag, array: Array) -> None:
        """See Channel. The receiver gets a read-only array, as strict as one that came over a network."""
        copy = array.copy()
        copy.flags.writeable = False
        with self._changed:
            self._arrays[tag] = copy
            self._changed.notify_all()

    def receive(self, tag: Tag) -> Array:
        """See Channel."""
        began = self.attendance.now()
        with self._changed:
            while tag not in self._arrays:
                if self._closed:
                    raise ChannelClosed
                left = self.attendance.left(began)
                if left <= 0:
                    raise ReceiveTimeout(f"waited {self.attendance.limit_s:g} s for the {tag}")
                self._changed.wait(left)
            return self._arrays.pop(tag)

    def close(self) -> None:
        """Wake every waiting worker with ChannelClosed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
