"""Requests for faults: their form, and why one is refused."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from coordinator.chaos.slowing import SLOW_SECONDS, SLOW_STEPS
from coordinator.chaos.timetable import Timetable
from coordinator.job.nearest import did_you_mean
from coordinator.texts import counted, some
from stages.actions import Action, Program
from stages.errors import UserMistake
from stages.faults import POINTS
from stages.orders import Fault, FaultKind

KINDS = ("kill", "stop", "slow", "partition", "oom", "corrupt", "disk-full")
"""The kinds of faults that a user may request."""
"""What `slow` does by default: seconds of computing before each action, and for how many steps."""
_ID = re.compile(r"\w{1,64}", re.ASCII)  # it becomes a part of a file's name
_SHOWN = 8  # actions of a lane
MOST_SECONDS, MOST_STEPS = 3600.0, 1_000_000


class FaultRequest(NamedTuple):
    """A request that a worker has a fault at a point (see Fault); `id` names the answer."""

    id: str
    what: FaultKind
    worker: int
    at: str | None = None
    step: int | None = None
    seconds: float = 0.0
    steps: int = 1

    def fault(self) -> Fault:
        """Return the fault."""
        return Fault(what=self.what, step=self.step, action=self.at, seconds=self.seconds, steps=self.steps, id=self.id)

    @staticmethod
    def read(content: Mapping[str, Any]) -> FaultRequest:
        """Return the request in a mapping from JSON. Raises ValueError for a wrong one."""
        try:
            request = FaultRequest(**content)
        except TypeError as error:
            raise ValueError(f"the request is not one: {error}") from None
        if wrong := form_problem(request):
            raise ValueError(wrong)
        return request


def request_of(
    what: str,
    worker: int,
    at: str | None,
    step: int | None,
    seconds: float = SLOW_SECONDS,
    steps: int = SLOW_STEPS,
) -> FaultRequest:
    """Return a request with a new id. Raises UserMistake."""
    kind: FaultKind = what  # type: ignore[assignment]  # checked by form_problem
    request = FaultRequest(secrets.token_hex(8), kind, worker, at, step, seconds, steps)
    if wrong := form_problem(request):
        raise UserMistake(wrong)
    return request


def form_problem(request: FaultRequest) -> str:
    """Return what is wrong with a request whatever the job; an empty text if nothing is."""
    if not isinstance(request.id, str) or not _ID.fullmatch(request.id):
        return "id: must be of 1 to 64 letters, digits and _"
    if request.what not in KINDS:
        return f"{request.what!r} is no kind of fault; there are {', '.join(KINDS)}{did_you_mean(request.what, KINDS)}"
    if type(request.worker) is not int or request.worker < 0:
        return f"worker: got {request.worker}, must be at least 0"
    if request.step is not None and (type(request.step) is not int or request.step < 1):
        return f"step: got {request.step}, must be at least 1"
    if not (isinstance(request.seconds, int | float) and type(request.steps) is int):
        return "seconds and steps must be numbers"
    if not (0 <= request.seconds <= MOST_SECONDS and 1 <= request.steps <= MOST_STEPS):
        return f"a slow worker computes for at most {MOST_SECONDS:g} s an action, in at most {MOST_STEPS:,} steps"
    if request.at is not None and request.at not in POINTS.values():
        try:
            Action.parse(str(request.at))
        except ValueError as error:
            return f"{error}, or {', '.join(POINTS.values())}"
    return ""


def problem_of(request: FaultRequest, timetable: Timetable, *, steps_done: int) -> str:
    """Return why the job cannot have the fault after `steps_done` steps; an empty text if it can."""
    if wrong := form_problem(request):
        return wrong
    program, steps_total = timetable.program_of(request.step), timetable.steps_total
    if request.worker >= program.n_workers:
        return f"worker {request.worker}: the job has {_workers(program)}"
    if request.step is not None and request.step > steps_total:
        return f"step {request.step}: the job has {counted(steps_total, 'step')}"
    if request.step is not None and request.step <= steps_done:
        return f"step {request.step} is past: {counted(steps_done, 'step')} {'is' if steps_done == 1 else 'are'} made"
    if request.at == "evaluation":
        return _evaluation_problem(request.step or steps_done + 1, request.step, timetable)
    if request.at is None or request.at in POINTS.values():
        return ""
    return _action_problem(Action.parse(request.at), request.worker, program)


def _evaluation_problem(first: int, step: int | None, timetable: Timetable) -> str:
    found = timetable.evaluation_after(first)
    if found is None:
        return "no evaluation is still to come"
    return "" if step in (None, found) else f"no evaluation follows step {step}; the next one follows step {found}"


def _action_problem(action: Action, worker: int, program: Program) -> str:
    lane = program.lanes[worker]
    if action in lane:
        return ""
    for other, others in enumerate(program.lanes):
        if action in others:
            return f"{action} is an action of worker {other}, not of worker {worker}"
    alike = [one for one in lane if (one.stage, one.micro_batch) == (action.stage, action.micro_batch)]
    instead = f", but {some(list(map(str, alike)))}" if alike else ""
    words = [*map(str, lane[:_SHOWN]), *(["…", str(lane[-1])] if len(lane) > _SHOWN else [])]
    return f"{program.name} has no {action}{instead}; worker {worker} performs {' '.join(words)}"


def _workers(program: Program) -> str:
    return "worker 0 only" if program.n_workers == 1 else f"workers 0 to {program.n_workers - 1}"
