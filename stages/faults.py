"""Faults at named points, so that what happens after one can be tested without sleeping."""

from __future__ import annotations

import os
import signal

from stages.actions import Action
from stages.orders import Fault
from stages.stage import Stage


def strike(fault: Fault, step: int, action: Action, stage: Stage) -> None:
    """Do what `fault` says if its point is reached."""
    if step != fault.step or str(action) != fault.action:
        return
    if fault.what == "raise":
        raise RuntimeError(f"injected fault before {action}")
    if fault.what == "exit":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.what == "hang":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        stage.parameters.values[:] = float("nan")
