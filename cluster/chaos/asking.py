"""Asks a run that trains into a run directory for a fault."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.run.earlier_run import require_not_in_use
from cluster.run.event_log import ENDINGS
from cluster.run.fault_desk import put_request
from coordinator import run_files
from coordinator.chaos.requests import request_of
from coordinator.chaos.slowing import SLOW_SECONDS, SLOW_STEPS
from coordinator.chaos.story import PLANNED, REFUSED, chaos_text
from stages.errors import Refused, UserMistake

WITHIN_S = 60.0
_LOOK_EVERY_S = 0.1


def inject_fault(
    run: str | Path,
    what: str,
    *,
    worker: int,
    at: str | None = None,
    step: int | None = None,
    seconds: float = SLOW_SECONDS,
    steps: int = SLOW_STEPS,
    within_s: float = WITHIN_S,
) -> str:
    """Let a worker of a run that `train` performs have a fault, and return what is planned as a line of text.

    `what` is `kill`, `stop`, `slow`, `partition`, `oom`, `corrupt` or `disk-full`. It strikes before the action `at`
    (as schedules print it: `2B5`; or `update`, `evaluation`, `checkpoint`) of step `step`, or at the next such point. A
    `slow` worker computes for `seconds` before each action, in `steps` steps. Raises UserMistake, and Refused if the
    run cannot have the fault or does not answer within `within_s` seconds.
    """
    request, folder = request_of(what, worker, at, step, seconds, steps), Path(run)
    if not all((folder / name).is_file() for name in run_files.MARKS):
        raise UserMistake(f"{folder}: is not a run directory")
    _require_running(folder)
    seen = sum(1 for _ in _events(folder))
    try:
        if not put_request(folder, request):
            raise Refused(f"{folder}: another request is waiting for its answer; try again")
    except OSError as error:
        raise UserMistake(f"{folder}: cannot be written: {error.strerror}") from None
    try:
        return _answer(folder, request.id, seen, time.monotonic() + within_s)
    finally:
        with contextlib.suppress(OSError):
            if json.loads((folder / run_files.FAULT_REQUEST).read_text())["id"] == request.id:
                (folder / run_files.FAULT_REQUEST).unlink()


def _answer(folder: Path, name: str, seen: int, until: float) -> str:
    while True:
        for place, event in enumerate(_events(folder)):
            if event.get("event") == PLANNED and event.get("id") == name:
                return chaos_text(PLANNED, event)
            if event.get("event") == REFUSED and event.get("id") == name:
                raise Refused(str(event["cause"]))
            if place >= seen and event.get("event") in ENDINGS:
                raise Refused(f"{folder}: {_ended(event)} before it took the request")
        if time.monotonic() > until:
            raise Refused(f"{folder}: the run did not take the request: it makes no step; try again")
        time.sleep(_LOOK_EVERY_S)


def _require_running(folder: Path) -> None:
    last = None
    for event in _events(folder):
        last = event
    if last is not None and last.get("event") in ENDINGS:
        raise Refused(f"{folder}: {_ended(last)}; only a run that trains can have a fault")
    try:
        require_not_in_use(folder)
    except UserMistake:
        return
    raise Refused(f"{folder}: nobody trains into it; only a run that trains can have a fault")


def _ended(event: Mapping[str, Any]) -> str:
    step = event.get("step")
    return f"the run {event['event']}" + (f" at step {step}" if step is not None else "")


def _events(folder: Path) -> Iterator[Mapping[str, Any]]:
    for line in (folder / run_files.EVENTS).read_bytes().splitlines():
        with contextlib.suppress(ValueError):  # one that is being written
            event = json.loads(line)
            if isinstance(event, dict):
                yield event
