"""Where a worker's time goes, without a remainder.

[Note: no remainder] The ledger's clock never stops: the stretch between two bookings belongs to what the second one
names. So what is booked between two reports sums to the time between them, whatever happens in it.
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
"""What a worker does for one of its stages. `update` is SGD and the gradients' norms; the waits are for arrays: up to
the lane's first backward action, after its last forward action, and between the two. If a stage runs forward again,
that is in `input_gradient`, and so is the weight gradient of its B."""
FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, UPDATE, WAIT_WARMUP, WAIT_STEADY, WAIT_DRAIN, SEND = range(len(STAGE_KINDS))
BUBBLE_KINDS = (WAIT_WARMUP, WAIT_STEADY, WAIT_DRAIN, SEND)
"""Where the worker does not compute though it is in a step: what the bubble ratio counts."""

WORKER_KINDS = ("checkpoint", "recovery", "evaluation", "other")
"""What a worker does for none of its stages alone; `other` is waiting for orders, and our own upkeep."""
CHECKPOINT, RECOVERY, EVALUATION, OTHER = range(len(WORKER_KINDS))

_now = time.perf_counter
_KIND_OF = {FORWARD: Kind.FORWARD, INPUT_GRADIENT: Kind.BACKWARD_INPUT, WEIGHT_GRADIENT: Kind.BACKWARD_WEIGHT}


class Account(NamedTuple):
    """Seconds from `began` to `ended`, both on the host's monotonic clock: `stages` by stage in the order of
    STAGE_KINDS, `worker` in that of WORKER_KINDS. Their sum is `ended - began`."""

    began: float
    ended: float
    stages: dict[int, tuple[float, ...]]
    worker: tuple[float, ...]


class Ledger:
    """One worker's clock. `timeline` has the actions since `take`, where `trace` is set."""

    def __init__(self, stages: Iterable[int]) -> None:
        self._by_stage = {stage: [0.0] * len(STAGE_KINDS) for stage in stages}
        self._of_worker = [0.0] * len(WORKER_KINDS)
        self._began = self._last = 0.0
        self.trace = False
        self.timeline: list[tuple[Action, float, float]] = []

    def open(self) -> None:
        """Work begins: the first time this starts the clock, later the time since is `other`: no order was there."""
        if self._last:
            self.book_worker(OTHER)
        else:
            self._began = self._last = _now()

    def book(self, stage: int, kind: int) -> None:
        """Book the time since the last booking for a stage."""
        now = _now()
        self._by_stage[stage][kind] += now - self._last
        self._last = now

    def book_action(self, stage: int, kind: int, micro_batch: int) -> None:
        """The same for forward, input gradient or weight gradient, which the timeline shows."""
        now, last = _now(), self._last
        self._by_stage[stage][kind] += now - last
        self._last = now
        if self.trace:
            self.timeline.append((Action(stage, _KIND_OF[kind], micro_batch), last, now))

    def book_worker(self, kind: int) -> None:
        """Book the time since the last booking for no stage."""
        now = _now()
        self._of_worker[kind] += now - self._last
        self._last = now

    def take(self) -> Account:
        """What was booked since the last `take`; the time until now is `other`."""
        self.book_worker(OTHER)
        account = Account(
            self._began, self._last, {s: tuple(row) for s, row in self._by_stage.items()}, tuple(self._of_worker)
        )
        for row in self._by_stage.values():
            row[:] = [0.0] * len(STAGE_KINDS)
        self._of_worker[:] = [0.0] * len(WORKER_KINDS)
        self._began = self._last
        return account


def wait_kinds(lane: Lane) -> tuple[int, ...]:
    """What a wait before each action of the lane is: WAIT_WARMUP, WAIT_STEADY or WAIT_DRAIN."""
    backward = [i for i, action in enumerate(lane) if action.kind is not Kind.FORWARD]
    forward = [i for i, action in enumerate(lane) if action.kind is Kind.FORWARD]
    first_backward, last_forward = min(backward, default=len(lane)), max(forward, default=-1)
    return tuple(
        WAIT_WARMUP if i <= first_backward else WAIT_DRAIN if i > last_forward else WAIT_STEADY
        for i in range(len(lane))
    )
