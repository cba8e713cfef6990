"""Faults at named points, so that what happens after one can be tested without sleeping."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np

from stages.actions import Action
from stages.orders import Evaluate, Fault, Order, Save, Update
from stages.stage import Stage

_NAMES: dict[type, str] = {Update: "update", Evaluate: "evaluation", Save: "checkpoint"}
UNBLOCK = threading.Event()
"""Setting it ends every `block` fault of this process."""


def strike(fault: Fault, step: int, action: Action, stage: Stage) -> bool:
    """Inject `fault` if its point is reached. Return whether the worker must lose the next array that it sends."""
    if step != fault.step or str(action) != fault.action:
        return False
    if fault.what == "nan":
        stage.parameters.values[:] = float("nan")
    _inject(fault)
    return fault.what == "lose"


def strike_order(fault: Fault, step: int | None, order: Order) -> None:
    """Inject `fault` if it belongs before this order; the last step was `step`."""
    if step == fault.step and _NAMES.get(type(order)) == fault.action:
        _inject(fault)


def _inject(fault: Fault) -> None:
    if fault.what == "raise":
        raise RuntimeError(f"injected fault before {fault.action}")
    if fault.what == "exit":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.what == "hang":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault.what == "block":
        UNBLOCK.wait()
    elif fault.what == "slow":
        _compute(fault.seconds)


def _compute(seconds: float) -> None:
    """Compute until this thread has used `seconds` of CPU time."""
    square = np.ones((64, 64), np.float32)
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        np.matmul(square, square)
