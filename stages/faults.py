"""Faults at named points: on a user's request (`pipetrain chaos`), and in tests, instead of sleeping.

A worker without faults asks once a step whether there are any.
"""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from stages.actions import Action
from stages.orders import Evaluate, Fault, Order, Save, Update
from stages.process_memory import status_bytes
from stages.stage import Stage

POINTS: dict[type, str] = {Update: "update", Evaluate: "evaluation", Save: "checkpoint"}
"""The names of the points that are no actions."""
UNBLOCK = threading.Event()
"""Setting it ends every `block` fault of this process."""
_OOM_ROOM = 64 * 2**20
_OOM_PART = 8 * 2**20


class FaultTools(Protocol):
    """What faults do outside of a worker's own thread and stages."""

    def claim(self, fault: Fault, step: int, point: str) -> bool:
        """Record durably that the fault strikes now; `corrupt` flips a bit in the newest checkpoint here. False if it
        struck in `fault.times` processes already."""

    def cut_links(self) -> None:
        """Lose every array that the worker sends or is sent."""

    def fill_disk(self) -> None:
        """Let the writing of the next checkpoint fail because the disk is full."""


class _NoTools:
    """Of a worker that is a thread, or has no run directory."""

    def claim(self, fault: Fault, step: int, point: str) -> bool:
        if fault.what == "corrupt":
            raise RuntimeError("a worker without a run directory has no checkpoint")
        return True

    def cut_links(self) -> None:
        raise RuntimeError("a worker without links cannot be cut off")

    def fill_disk(self) -> None:
        raise RuntimeError("a worker without a run directory writes no checkpoint")


class FaultPlan:
    """The faults of one worker process. Another thread may `add` one; the worker's thread calls the other methods."""

    def __init__(self, faults: Sequence[Fault] = (), tools: FaultTools | None = None) -> None:
        self._faults, self._tools = list(faults), tools or _NoTools()
        self._lock = threading.Lock()
        self._step = 0
        self.loses_next = False
        """Whether the worker must lose the next array that it sends."""
        self._struck: dict[Fault, int] = {}  # the step in which it struck in this process; 0 if in an earlier one

    @property
    def planned(self) -> bool:
        """Whether there is a fault, even one that has struck."""
        return bool(self._faults)

    def add(self, fault: Fault) -> int | None:
        """Plan another fault. If its step has begun already, plan nothing and return the step in progress."""
        with self._lock:
            if fault.step is not None and fault.step <= self._step:
                return self._step
            self._faults.append(fault)
            return None

    def of_step(self, step: int) -> Sequence[Fault]:
        """Begin a step, and return the faults that may strike in it."""
        with self._lock:
            self._step = step
            return [fault for fault in self._faults if self._is_of(fault, step)] if self._faults else ()

    def _is_of(self, fault: Fault, step: int) -> bool:
        first = self._struck.get(fault, fault.step)
        if fault.what == "slow" and first is not None:
            return first <= step < first + fault.steps
        return (fault.step is None or fault.step == step) and fault not in self._struck

    def strike(self, faults: Sequence[Fault], step: int, action: Action, stage: Stage) -> None:
        """Let those of `faults` strike whose point is before this action."""
        for fault in faults:
            if fault.action in (None, str(action)) and self._strikes(fault, step, str(action)):
                if fault.what == "nan":
                    stage.parameters.values[:] = float("nan")
                self.loses_next |= fault.what == "lose"
                self._inject(fault, str(action))

    def strike_order(self, step: int | None, order: Order) -> None:
        """Let the faults strike whose point is before this order; the last step was `step`."""
        point = POINTS.get(type(order))
        for fault in [] if point is None else list(self._faults):
            if fault.action != point or fault in self._struck:
                continue
            first = fault.step or 0
            due = fault.step in (None, step) or (point == "checkpoint" and first <= (step or 0))
            if due and self._strikes(fault, step or 0, str(point)):
                self._inject(fault, str(point))

    def _strikes(self, fault: Fault, step: int, point: str) -> bool:
        if fault in self._struck:
            return fault.what == "slow" and self._struck[fault] > 0
        claimed = self._tools.claim(fault, step, point)
        self._struck[fault] = step if claimed else 0
        return claimed

    def _inject(self, fault: Fault, point: str) -> None:
        if fault.what == "raise":
            raise RuntimeError(f"injected fault before {point}")
        if fault.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault.what == "stop":
            # to this thread: if another one takes the signal, this one goes on for a moment
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        elif fault.what == "block":
            UNBLOCK.wait()
        elif fault.what == "slow":
            _compute(fault.seconds)
        elif fault.what == "oom":
            _exhaust_memory()
        elif fault.what == "partition":
            self._tools.cut_links()
        elif fault.what == "disk-full":
            self._tools.fill_disk()


def _compute(seconds: float) -> None:
    """Compute until this thread has used `seconds` of CPU time."""
    square = np.ones((64, 64), np.float32)
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        np.matmul(square, square)


def _exhaust_memory() -> None:
    """Allocate memory up to a limit of the kernel a little above what the process has. Raises MemoryError, after which
    the process has its former limit again, so that it can report the error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = status_bytes("VmData") + _OOM_ROOM
    resource.setrlimit(resource.RLIMIT_DATA, (limit if soft == resource.RLIM_INFINITY else min(limit, soft), hard))
    held: list[np.ndarray[Any, np.dtype[np.uint8]]] = []
    try:
        while True:
            held.append(np.ones(_OOM_PART, np.uint8))
    finally:
        held.clear()
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
