"""Faults at named points: when they strike, how often, and that nothing follows one that ends or stops the process."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from stages.actions import Action
from stages.faults import FaultPlan
from stages.orders import Evaluate, Fault, Save, Update

STAGE: Any = None
FIRST, SECOND = Action.parse("1F0"), Action.parse("1B0")


class Recorded:
    """Records what strikes; other things than claims are not wanted."""

    def __init__(self) -> None:
        self.struck: list[tuple[str, int, str]] = []

    def claim(self, fault: Fault, step: int, point: str) -> bool:
        self.struck.append((fault.name, step, point))
        return True

    def cut_links(self) -> None:
        self.struck.append(("cut", 0, ""))

    def fill_disk(self) -> None:
        self.struck.append(("full", 0, ""))


def perform(plan: FaultPlan, steps: range) -> None:
    """Perform steps of two actions, each with an update, an evaluation after each third and a checkpoint after each
    fourth."""
    for step in steps:
        faults = plan.of_step(step)
        for action in (FIRST, SECOND):
            plan.strike(faults, step, action, STAGE)
        plan.strike_order(step, Update(step, 0.1))
        if step % 3 == 0:
            plan.strike_order(step, Evaluate("validation", 4, 4))
        if step % 4 == 0:
            plan.strike_order(step, Save(step))


@pytest.mark.parametrize(
    ("fault", "at"),
    [
        (Fault(what="partition", step=2), (2, "1F0")),
        (Fault(what="partition", step=2, action="1B0"), (2, "1B0")),
        (Fault(what="partition", action="1B0"), (1, "1B0")),
        (Fault(what="partition"), (1, "1F0")),
        (Fault(what="partition", step=2, action="update"), (2, "update")),
        (Fault(what="partition", step=6, action="evaluation"), (6, "evaluation")),
        (Fault(what="partition", action="evaluation"), (3, "evaluation")),
        (Fault(what="partition", step=5, action="checkpoint"), (8, "checkpoint")),
        (Fault(what="partition", step=5, action="evaluation"), None),
        (Fault(what="partition", step=2, action="1F9"), None),
    ],
)
def test_a_fault_strikes_once_at_its_point(fault: Fault, at: tuple[int, str] | None) -> None:
    tools = Recorded()
    plan = FaultPlan([fault], tools)
    perform(plan, range(1, 11))
    perform(plan, range(1, 11))  # made again after a recovery, in a process that stays
    assert tools.struck == ([] if at is None else [(fault.name, *at), ("cut", 0, "")])


def test_a_slow_worker_is_slow_before_each_action_of_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[float] = []
    monkeypatch.setattr("stages.faults._compute", computed.append)
    tools = Recorded()
    perform(FaultPlan([Fault(what="slow", step=3, steps=2, seconds=0.5)], tools), range(1, 8))
    assert computed == [0.5] * 4
    assert len(tools.struck) == 1


def test_a_fault_is_planned_only_for_a_step_that_has_not_begun() -> None:
    tools = Recorded()
    plan = FaultPlan(tools=tools)
    perform(plan, range(1, 4))
    assert plan.add(Fault(what="disk-full", step=3)) == 3
    assert plan.add(Fault(what="disk-full", step=5)) is None
    perform(plan, range(4, 7))
    assert tools.struck == [("5-None-disk-full", 5, "1F0"), ("full", 0, "")]


def test_a_worker_that_runs_out_of_memory_keeps_its_limit() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(MemoryError):
        perform(FaultPlan([Fault(what="oom", step=1)]), range(1, 2))
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_nothing_follows_in_a_process_that_was_stopped() -> None:
    """The signal went to any thread of the process: the others went on for a moment, in which the next fault made its
    mark, and then never struck."""
    for _ in range(30):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _stop_with_other_threads(writing)
        os.close(writing)
        try:
            deadline = time.monotonic() + 20
            while Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "T":
                assert time.monotonic() < deadline, "the child is not stopped"
                time.sleep(0.001)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as pipe:
            assert pipe.read() == b"", "the child went on"


def _stop_with_other_threads(writing: int) -> None:
    """Never returns. A worker's thread is not the main one, either."""

    def work() -> None:
        perform(FaultPlan([Fault(what="stop", step=1, action="1F0")]), range(1, 2))
        os.write(writing, b"x")

    try:
        worker = threading.Thread(target=work)
        worker.start()
        worker.join()
    finally:
        os._exit(0)
