"""What came of a campaign of faults: a row for each, made from the campaign and the events of the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from coordinator.chaos.campaign import Planned
from coordinator.chaos.story import STRUCK

_LOST, _RECOVERED, _CAUGHT_UP = "worker lost", "recovered", "caught up"
_LETHAL = ("kill", "stop", "oom", "partition")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one fault.

    `found_s` is the time from the fault until the loss of a worker was found, `replaced_s` from then until all workers
    were ready again; `steps_lost` were made again, with `identical` rows. They are None if no worker was lost, or if
    that is not known. `with_another`: the worker was replaced together with another one, whose loss was found first.
    """

    number: str
    kind: str
    worker: int
    step: int | None
    point: str | None
    struck: bool = False
    detail: str = ""
    found_s: float | None = None
    replaced_s: float | None = None
    steps_lost: int | None = None
    identical: bool | None = None
    with_another: bool = False


def outcomes(plan: Sequence[Planned], events: Iterable[Mapping[str, Any]]) -> tuple[Outcome, ...]:
    """Return the outcome of each planned fault, from all events of the run in order."""
    found = {
        fault.id: Outcome(number=fault.id, kind=fault.what, worker=worker, step=fault.step, point=fault.action)
        for worker, fault in plan
    }
    struck_at: dict[str, float] = {}
    lost, behind = set[str](), set[str]()

    def change(name: str, **changes: Any) -> None:
        found[name] = dataclasses.replace(found[name], **changes)

    for event in events:
        kind, name = event.get("event"), event.get("id") if event.get("event") == STRUCK else event.get("fault")
        if kind == STRUCK and name in found:
            struck_at[name] = float(event["time_s"])
            change(name, struck=True, detail=event["detail"])
        elif kind == _LOST and name in found:
            lost.add(name)
            change(name, found_s=_seconds(event) - struck_at[name])
        elif kind == _RECOVERED:
            workers = {at["worker"] for at in event["workers"]}
            for name, one in found.items():
                alone = name in lost
                if one.struck and one.kind in _LETHAL and one.replaced_s is None and (alone or one.worker in workers):
                    change(
                        *(name,),
                        replaced_s=event["replaced_s"],
                        steps_lost=event["steps_lost"],
                        with_another=not alone,
                    )
                    behind.add(name)
        elif kind == _CAUGHT_UP:
            for name in behind:
                change(name, identical=bool(event["identical"]))
            behind.clear()
    return tuple(found.values())


def other_losses(events: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the causes of the losses that no fault explains."""
    return [str(event["cause"]) for event in events if event.get("event") == _LOST and not event.get("fault")]


def _seconds(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(str(event["time"])).timestamp()
