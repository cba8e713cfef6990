"""Where a worker's time goes, without a remainder.

[Note: no remainder] The ledger's clock never stops: each booking takes all the time since the booking before it. So
the times booked between two reports add up to the time between them, whatever happens in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from stages.actions import Action, Kind, Lane

STAGE_KINDS = (
    "forward",
    "input_gradient",
    "weight_gradient",
    "update",
    "wait_warmup",
    "wait_steady",
    "wait_drain",
    "send",
)
"""The kinds of time that a worker spends on one of its stages. `update` is the optimizer and the gradients' norms. The
waits are for arrays: `wait_warmup` up to the lane's first backward action, `wait_drain` after its last forward action,
`wait_steady` in between. If a stage runs forward again, `input_gradient` includes that, and the weight gradient of its
B."""
FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, UPDATE, WAIT_WARMUP, WAIT_STEADY, WAIT_DRAIN, SEND = range(len(STAGE_KINDS))
BUBBLE_KINDS = (WAIT_WARMUP, WAIT_STEADY, WAIT_DRAIN, SEND)
"""The kinds in which the worker is in a step but does not compute. The bubble is their share."""

WORKER_KINDS = ("checkpoint", "recovery", "evaluation", "other")
"""The kinds of time that belong to no single stage; `other` is waiting for orders, and pipetrain's own overhead."""
CHECKPOINT, RECOVERY, EVALUATION, OTHER = range(len(WORKER_KINDS))

_now = time.perf_counter
_KIND_OF = {FORWARD: Kind.FORWARD, INPUT_GRADIENT: Kind.BACKWARD_INPUT, WEIGHT_GRADIENT: Kind.BACKWARD_WEIGHT}


class Account(NamedTuple):
    """A worker's time from `began` to `ended`, in seconds of the host's monotonic clock. `stages` has the seconds of
    each stage in the order of STAGE_KINDS, `worker` those in the order of WORKER_KINDS; all together are `ended -
    began`. `cpu` is the CPU time of the worker's thread in it."""

    began: float
    ended: float
    stages: dict[int, tuple[float, ...]]
    worker: tuple[float, ...]
    cpu: float = 0.0


class Ledger:
    """The clock of one worker. If `trace` is set, `timeline` collects the actions with their start and end.

    `recovering_since` is the end of the last account before a worker was lost: the time from then to the first order is
    `recovery`.
    """

    def __init__(self, stages: Iterable[int], recovering_since: float | None = None) -> None:
        self._by_stage = {stage: [0.0] * len(STAGE_KINDS) for stage in stages}
        self._of_worker = [0.0] * len(WORKER_KINDS)
        self._began = self._last = recovering_since or 0.0
        self._cpu = 0.0
        self._without_orders = OTHER if recovering_since is None else RECOVERY
        self.trace = False
        self.timeline: list[tuple[Action, float, float]] = []

    def open(self) -> None:
        """Begin to work. The first call starts the clock; later calls book the time without orders as `other`."""
        if not self._cpu:
            self._cpu = time.thread_time()
        if self._last:
            self.book_worker(self._without_orders)
            self._without_orders = OTHER
        else:
            self._began = self._last = _now()

    def book(self, stage: int, kind: int) -> None:
        """Book the time since the last booking for a stage."""
        now = _now()
        self._by_stage[stage][kind] += now - self._last
        self._last = now

    def book_action(self, stage: int, kind: int, micro_batch: int) -> None:
        """Like `book`, for forward, input gradient or weight gradient, which the timeline shows too."""
        now, last = _now(), self._last
        self._by_stage[stage][kind] += now - last
        self._last = now
        if self.trace:
            self.timeline.append((Action(stage, _KIND_OF[kind], micro_batch), last, now))

    def book_worker(self, kind: int) -> None:
        """Book the time since the last booking for the worker as a whole."""
        now = _now()
        self._of_worker[kind] += now - self._last
        self._last = now

    def take(self) -> Account:
        """Return the times booked since the last `take`; the time since the last booking is `other`."""
        self.book_worker(OTHER)
        cpu = time.thread_time()
        account = Account(
            *(self._began, self._last, {s: tuple(row) for s, row in self._by_stage.items()}, tuple(self._of_worker)),
            cpu=cpu - self._cpu,
        )
        self._cpu = cpu
        for row in self._by_stage.values():
            row[:] = [0.0] * len(STAGE_KINDS)
        self._of_worker[:] = [0.0] * len(WORKER_KINDS)
        self._began = self._last
        return account


def wait_kinds(lane: Lane) -> tuple[int, ...]:
    """Return the kind of a wait before each action of the lane: WAIT_WARMUP, WAIT_STEADY or WAIT_DRAIN."""
    backward = [i for i, action in enumerate(lane) if action.kind is not Kind.FORWARD]
    forward = [i for i, action in enumerate(lane) if action.kind is Kind.FORWARD]
    first_backward, last_forward = min(backward, default=len(lane)), max(forward, default=-1)
    return tuple(
        WAIT_WARMUP if i <= first_backward else WAIT_DRAIN if i > last_forward else WAIT_STEADY
        for i in range(len(lane))
    )
