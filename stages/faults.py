"""Faults at named points, so that what happens after one can be tested without sleeping."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np

from stages.actions import Action
from stages.orders import Fault
from stages.stage import Stage

UNBLOCK = threading.Event()
"""Ends every `block` of this process."""


def strike(fault: Fault, step: int, action: Action, stage: Stage) -> bool:
    """Do what `fault` says if its point is reached. True if the worker's next array shall get lost."""
    if step != fault.step or str(action) != fault.action:
        return False
    if fault.what == "raise":
        raise RuntimeError(f"injected fault before {action}")
    if fault.what == "exit":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.what == "hang":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault.what == "block":
        UNBLOCK.wait()
    elif fault.what == "slow":
        _compute(fault.seconds)
    elif fault.what == "nan":
        stage.parameters.values[:] = float("nan")
    return fault.what == "lose"


def _compute(seconds: float) -> None:
    """Real work, as long as it takes to use up `seconds` of this thread's CPU time."""
    square = np.ones((64, 64), np.float32)
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        np.matmul(square, square)
