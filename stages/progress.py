"""What a worker is doing now. The thread that performs its orders writes it; other threads read it.

Writing takes no lock, because it happens several times an action: the writer replaces one tuple by another, and a
reader takes whichever tuple is there.
"""

from __future__ import annotations

import threading
import time
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from stages.actions import Action
from stages.channel import Tag


class Doing(StrEnum):
    """`PREPARING`: the worker has no stages yet. `IDLE`: it has no orders. `STORING`: it reads or writes files.
    `WAITING`: for an array. `SENDING`: until the channel has taken the array."""

    PREPARING = "preparing"
    IDLE = "idle"
    COMPUTING = "computing"
    STORING = "storing"
    WAITING = "waiting"
    SENDING = "sending"


_COMPUTING, _STORING = Doing.COMPUTING, Doing.STORING  # quicker than looking up a member
_WAITING, _SENDING = Doing.WAITING, Doing.SENDING
_BUSY = 0.2
"""CPU time in relation to time; the threads of Ray and ZeroMQ need a tenth of it while nothing is done."""


class LinkSeen(NamedTuple):
    """A connection over the network, as the sender's kernel knows it. `acknowledged` counts the bytes that have arrived
    at worker `peer`; `waiting`: whether some are sent and have not. Without a connection `acknowledged` is None."""

    peer: int
    acknowledged: int | None
    waiting: bool


class Seen(NamedTuple):
    """A worker's report of what it is doing.

    `changes` counts the activities that it has begun. `action` is the action in progress, of step `step` (from 1) or,
    if `evaluating`, of the evaluation after that step. `tag` is the array that it waits for from worker `peer`, or
    sends to it. `round` is its current step or evaluation, as in Tag; `sent` lists the arrays sent in that round.
    `cpu_s` is the CPU time of the thread that performs its orders, in seconds, `thread` the thread's id, `asleep`
    whether it sleeps: it neither runs nor waits for a CPU, a disk, or memory, and no other thread of its process works
    (False if that is not known). `links`: its connections to workers on other hosts.
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
    asleep: bool = False
    thread: int | None = None
    links: tuple[LinkSeen, ...] = ()

    def has_sent(self, tag: Tag) -> bool:
        """Whether it has sent the array already."""
        return self.round > tag.round or tag in self.sent


class Progress:
    """The progress of one worker. Only the thread that performs its orders calls methods other than `seen`."""

    __slots__ = ("_asked", "_changes", "_clock", "_now", "_round", "_sent", "_thread", "evaluating")

    def __init__(self) -> None:
        self._now: tuple[Doing, int, int | None, Action | None, Tag | None, int | None] = (
            Doing.IDLE,
            *(0, None, None, None, None),
        )
        self.evaluating = False
        """Whether the present order is an evaluation."""
        self._changes = 0
        self._clock: int | None = None
        self._thread: int | None = None
        self._asked: tuple[float, float] | None = None  # when `seen` was last called: time, CPU time of the process
        self._round = 0
        self._sent: list[Tag] = []

    def begin(self) -> None:
        """Record that this thread begins to perform orders."""
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        self._thread = threading.get_native_id()
        self.compute(None, None)

    def compute(self, step: int | None, action: Action | None) -> None:
        """Record that the worker computes `action`, or, if that is None, work that belongs to no action."""
        self._changes += 1
        self._now = (_COMPUTING, self._changes, step, action, None, None)

    def store(self, step: int | None, action: Action | None) -> None:
        """Record that the worker reads or writes files."""
        self._changes += 1
        self._now = (_STORING, self._changes, step, action, None, None)

    def wait(self, step: int | None, action: Action | None, tag: Tag, sender: int) -> None:
        """Record that the worker waits for an array."""
        self._changes += 1
        self._now = (_WAITING, self._changes, step, action, tag, sender)

    def send(self, step: int | None, action: Action | None, tag: Tag, receiver: int) -> None:
        """Record that the worker sends an array."""
        self._changes += 1
        self._now = (_SENDING, self._changes, step, action, tag, receiver)

    def sent(self, tag: Tag) -> None:
        """Record that the channel has taken an array."""
        if tag.round != self._round:
            self._round, self._sent = tag.round, []
        self._sent.append(tag)

    def rest(self, step: int | None, round_: int) -> None:
        """Record that all orders are performed."""
        if round_ != self._round:
            self._round, self._sent = round_, []
        self._changes += 1
        self._now = (Doing.IDLE, self._changes, step, None, None, None)

    def seen(self) -> Seen:
        """Return what the worker is doing now. Any thread may call this."""
        clock, cpu_s = self._clock, 0.0
        if clock is not None:
            try:
                cpu_s = time.clock_gettime(clock)
            except OSError:  # the thread has ended
                cpu_s = 0.0
        sent, round_, thread = tuple(self._sent), self._round, self._thread
        asleep = not self._is_busy() and thread is not None and thread_state(thread) == "S"
        return Seen(
            *self._now,
            round=round_,
            sent=sent,
            cpu_s=cpu_s,
            evaluating=self.evaluating,
            asleep=asleep,
            thread=thread,
        )

    def _is_busy(self) -> bool:
        """Whether other threads of the process have worked since the last call: BLAS computes for the thread, or a
        message is being encrypted."""
        before, now = self._asked, (time.monotonic(), time.process_time())
        self._asked = now
        return before is None or now[1] - before[1] > _BUSY * (now[0] - before[0])


def thread_state(thread: int, process: int | None = None) -> str:
    """Return the state of a thread of this process, or of `process`, as proc(5) has it: S if it sleeps, R if it runs or
    waits for a CPU, D if it waits for a disk or for memory, T if it is stopped. "" if the system does not tell."""
    try:
        stat = Path(f"/proc/{process or 'self'}/task/{thread}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]
