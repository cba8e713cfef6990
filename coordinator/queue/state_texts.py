"""How the states of a job are shown and stored: reasons, exit codes, and plain values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from coordinator.queue.job_states import (
    STATES,
    Failed,
    Recovering,
    Running,
    Starting,
    State,
    StopAsked,
    Stopped,
    Succeeded,
)


def reason(state: State) -> str:
    """Return one line: why the job is in this state. A queued job's reason comes from the queue (`job_queue.py`)."""
    match state:
        case Starting() | Running() if state.stop is not None and state.stop.room_for:
            return f"makes room for job {state.stop.room_for}: finishes the steps in progress and saves"
        case Starting() | Running() if state.stop is not None and state.stop.service_ends:
            return "the service is being shut down: finishes the steps in progress and saves"
        case Starting() | Running() if state.stop is not None:
            within = "" if state.stop.grace is None else f" within {state.stop.grace:g} s"
            saves = f"stopping: finishes the steps in progress and saves{within}"
            return "ending its processes" if state.stop.now else saves
        case Starting():
            return state.detail
        case Recovering():
            return f"{state.cause}; attempt {state.attempt} starts when there is room"
        case Failed():
            return next((line for line in state.cause.splitlines() if line.strip()), state.kind)
        case Stopped():
            return state.how
        case Running() if state.attempt > 1:
            return f"attempt {state.attempt}"
    return ""


def exit_code(state: State) -> int | None:
    """Return the exit code of a command that follows the job; None while the job has not ended."""
    match state:
        case Succeeded():
            return 0
        case Failed():
            return 2 if state.mistake else 1
        case Stopped():
            return 3 if state.lost else 130
    return None


def to_document(state: State) -> dict[str, Any]:
    """Return the state's fields as plain values, for the store. `from_document` reads them."""
    return asdict(state)


def from_document(name: str, document: dict[str, Any]) -> State:
    """Return the state of this name that `to_document` wrote."""
    (kind,) = (kind for kind in STATES if kind.name == name)
    stop = document.get("stop")
    if isinstance(stop, dict):
        document = {**document, "stop": StopAsked(**stop)}
    state: State = kind(**document)
    return state
