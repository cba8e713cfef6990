"""What a worker does now: written by the thread that performs its orders, read by whoever looks after it.

Writing takes no lock and no call, for it happens a few times an action: the writer puts a new tuple in place of the
old one, and a reader takes the one that is there.
"""

from __future__ import annotations

import threading
import time
from enum import StrEnum
from typing import NamedTuple

from stages.actions import Action
from stages.channel import Tag


class Doing(StrEnum):
    """`PREPARING` has no stages yet, `IDLE` no orders; `WAITING` is for an array, `SENDING` until one is taken in."""

    PREPARING = "preparing"
    IDLE = "idle"
    COMPUTING = "computing"
    WAITING = "waiting"
    SENDING = "sending"


_COMPUTING, _WAITING, _SENDING = Doing.COMPUTING, Doing.WAITING, Doing.SENDING  # looking a member up takes longer


class Seen(NamedTuple):
    """What a worker says of itself.

    `changes` counts what it has begun so far. `action` of step `step` (from 1) is what it performs, or with
    `evaluating` of the evaluation after that step; `tag` what it waits for from worker `peer`, or sends to it. `round`
    is its step or evaluation, as in Tag, and `sent` has what it sent in it. `cpu_s` is the CPU time of the thread that
    performs its orders, in seconds.
    """

    doing: Doing
    changes: int = 0
    step: int | None = None
    action: Action | None = None
    tag: Tag | None = None
    peer: int | None = None
    round: int = 0
    sent: tuple[Tag, ...] = ()
    cpu_s: float = 0.0
    evaluating: bool = False

    def has_sent(self, tag: Tag) -> bool:
        """Whether it has sent the array already."""
        return self.round > tag.round or tag in self.sent


class Progress:
    """One worker's. All methods but `seen` are for the thread that performs its orders."""

    __slots__ = ("_changes", "_clock", "_now", "_round", "_sent", "evaluating")

    def __init__(self) -> None:
        self._now: tuple[Doing, int, int | None, Action | None, Tag | None, int | None] = (
            Doing.IDLE,
            *(0, None, None, None, None),
        )
        self.evaluating = False
        """Whether its present order is an evaluation."""
        self._changes = 0
        self._clock: int | None = None
        self._round = 0
        self._sent: list[Tag] = []

    def begin(self) -> None:
        """Orders are there, for this thread."""
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        self.compute(None, None)

    def compute(self, step: int | None, action: Action | None) -> None:
        """It computes; without `action`, what belongs to none."""
        self._changes += 1
        self._now = (_COMPUTING, self._changes, step, action, None, None)

    def wait(self, step: int | None, action: Action | None, tag: Tag, sender: int) -> None:
        """It waits for an array."""
        self._changes += 1
        self._now = (_WAITING, self._changes, step, action, tag, sender)

    def send(self, step: int | None, action: Action | None, tag: Tag, receiver: int) -> None:
        """It sends an array."""
        self._changes += 1
        self._now = (_SENDING, self._changes, step, action, tag, receiver)

    def sent(self, tag: Tag) -> None:
        """An array was given to the channel."""
        if tag.round != self._round:
            self._round, self._sent = tag.round, []
        self._sent.append(tag)

    def rest(self, step: int | None, round_: int) -> None:
        """It has done its orders."""
        if round_ != self._round:
            self._round, self._sent = round_, []
        self._changes += 1
        self._now = (Doing.IDLE, self._changes, step, None, None, None)

    def seen(self) -> Seen:
        """What it does now. Any thread may ask."""
        clock, cpu_s = self._clock, 0.0
        if clock is not None:
            try:
                cpu_s = time.clock_gettime(clock)
            except OSError:  # the thread has ended
                cpu_s = 0.0
        sent, round_ = tuple(self._sent), self._round
        return Seen(*self._now, round=round_, sent=sent, cpu_s=cpu_s, evaluating=self.evaluating)
