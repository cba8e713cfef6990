"""Converts a runner's line of events.jsonl into an event of the job's state and into a line of text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from coordinator.chaos.story import chaos_text
from coordinator.queue.happenings import Happening, Preparation, RunFailed, RunFinished, RunnerLost, RunStopped, Started
from coordinator.texts import counted, size
from coordinator.train.story import story_text, straggler_text


def happening(event: Mapping[str, Any]) -> Happening | None:
    """Return what the event means for the job's state; None if it does not change the state."""
    match event.get("event"):
        case "preparing":
            return Preparation("reading its data")
        case "starting":
            return Preparation(f"starting {counted(event['workers'], 'worker')}")
        case "waiting":
            return Preparation(str(event["detail"]))
        case "started":
            return Started()
        case "finished":
            return RunFinished()
        case "stopped":
            return _stopped(event)
        case "failed":
            return RunFailed(
                str(event["cause"]), str(event["kind"]), bool(event.get("mistake")), str(event.get("traceback", ""))
            )
        case "interrupted":
            return RunnerLost(f"its runner was interrupted: {event.get('cause')}", again=True)
    return None


def _stopped(event: Mapping[str, Any]) -> RunStopped:
    step, saved = int(event["step"]), bool(event["saved"])
    newest = event.get("checkpoint", step if saved else None)  # older versions did not say it
    return RunStopped(step, saved, None if newest is None else int(newest))


def text(event: Mapping[str, Any]) -> str:
    """Return the event as a line of text."""
    match event.get("event"):
        case "preparing":
            return f"the runner is process {event['pid']} on {event['host']}; reads the data"
        case "starting":
            return (
                f"starts {counted(event['workers'], 'worker')} for {counted(event['stages'], 'stage')}, "
                f"{event['schedule']}, {counted(event['micro_batches'], 'micro-batch')}, "
                f"{counted(event['steps_total'], 'step')} to make"
            )
        case "started":
            hosts = sorted({worker["host"] for worker in event["workers"]})
            return f"training began on {', '.join(hosts)}"
        case "finished":
            return f"all {counted(event['step'], 'step')} made, model saved"
        case "stopped":
            return _stopped(event).text
        case "checkpoint":
            return f"checkpoint of step {event['step']}: {size(event['bytes'])}"
        case "checkpoint stored" if "url" in event:
            return f"checkpoint of step {event['step']} is copied to {event['url']}"
        case "resumed":
            return f"goes on from the checkpoint of step {event['step']}"
        case "checkpoint not saved":
            return f"no checkpoint of step {event['step']}: {event['cause']}"
        case "worker lost" | "laid out anew" | "recovered" | "caught up" as kind:
            return story_text(kind, event)
        case "fault" | "fault planned" | "fault refused" as kind:
            return chaos_text(kind, event)
        case "straggler" | "straggler over":
            return straggler_text(event)
        case "trace saved":
            return f"trace.json has {counted(event['steps'], 'step')}, from step {event['first']} on"
        case "failed":
            return str(event["cause"]).partition("\n")[0]
    return str(event.get("detail") or event.get("cause") or "")


def seconds(event: Mapping[str, Any], otherwise: float) -> float:
    """Return the time of the event in seconds UTC; `otherwise` if it has no valid time."""
    try:
        return datetime.fromisoformat(str(event["time"])).timestamp()
    except (KeyError, ValueError):
        return otherwise


def details(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the other entries of the event."""
    return {key: value for key, value in event.items() if key not in ("time", "event", "attempt")}
