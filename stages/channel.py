"""The port that carries arrays between workers, and its form inside one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from stages.actions import Kind
from stages.arrays import Array


class Tag(NamedTuple):
    """Identifies an array. F or I: the input of the forward or backward action of `stage` for a micro-batch. W: the
    gradient of a tied weight at operation `micro_batch`, sent to the owner's stage. B: the weight's new value, sent to
    the stage of operation `micro_batch`, which uses it.

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
    """No array arrived within the limit. Usually an echo of another worker's failure."""


class ChannelClosed(Exception):
    """The run ended while a worker waited."""


class Attendance:
    """The limit of a worker's waits. While the coordinator keeps asking about the worker's progress, and so decides
    itself which worker hangs, a wait has no limit. If it has not asked for `limit_s` seconds, it is gone."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_s, self.now = limit_s, clock
        self._asked = clock()

    def asked(self) -> None:
        """Record that the coordinator asked about the worker. Any thread may call this."""
        self._asked = self.now()

    def left(self, since: float) -> float:
        """Return how many seconds a wait may still take that began at `since`, a time of the clock `now`."""
        return max(since, self._asked) + self.limit_s - self.now()


def unattended_limit(hang_timeout: float) -> float:
    """Return how many seconds a worker waits if the coordinator does not ask: it may itself be held up for a while."""
    return max(2 * hang_timeout, 300.0)


class Channel(Protocol):
    """Carries arrays between workers. They may arrive in any order."""

    def send(self, worker: int, tag: Tag, array: Array) -> None:
        """Send `array` to `worker`. It is copied: the caller may change it at once."""

    def receive(self, tag: Tag) -> Array:
        """Return the array sent under `tag`; it may be read-only. Raises ReceiveTimeout, ChannelClosed."""


class LocalExchange:
    """The channel between workers that are threads of one process. `timeout_s` is the limit of a receive if the
    coordinator does not ask (see Attendance)."""

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.attendance = Attendance(timeout_s, clock)
        self._guard = threading.Lock()  # of what follows
        self._arrays: dict[Tag, Array] = {}
        self._wakes: dict[Tag, threading.Lock] = {}
        """A locked lock for each array that a worker waits for: only that worker wakes when it comes."""
        self._closed = False

    def send(self, worker: int, tag: Tag, array: Array) -> None:
        """See Channel. The receiver gets a read-only array, as it may from a network."""
        copy = array.copy()
        copy.flags.writeable = False
        with self._guard:
            self._arrays[tag] = copy
            wake = self._wakes.pop(tag, None)
        if wake is not None:
            wake.release()

    def receive(self, tag: Tag) -> Array:
        """See Channel. Only one worker waits for an array."""
        began = self.attendance.now()
        while True:
            with self._guard:
                found = self._arrays.pop(tag, None)
                if found is not None:
                    return found
                if self._closed:
                    raise ChannelClosed
                wake = self._wakes.get(tag)
                if wake is None:
                    wake = self._wakes[tag] = threading.Lock()
                    wake.acquire()
            left = self.attendance.left(began)
            if left <= 0:
                raise ReceiveTimeout(f"waited {self.attendance.limit_s:g} s for the {tag}")
            wake.acquire(timeout=left)

    def close(self) -> None:
        """Wake every waiting worker with ChannelClosed."""
        with self._guard:
            self._closed = True
            wakes = list(self._wakes.values())
            self._wakes.clear()
        for wake in wakes:
            wake.release()
