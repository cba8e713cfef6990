"""How a job survives: its checkpoints, lost workers and recoveries, from the events of all its attempts."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from coordinator.chaos.story import STRUCK
from coordinator.train.recovery import Cause
from coordinator.train.story import CAUGHT_UP, LOST, RECOVERED

SAVED, NOT_SAVED, DAMAGED = "written", "failed", "damaged"
"""What may become of a checkpoint."""
RESULTS = (SAVED, NOT_SAVED, DAMAGED)
_RESULT_OF = {"checkpoint": SAVED, "checkpoint not saved": NOT_SAVED, "checkpoint damaged": DAMAGED}
CAUSES = tuple(map(str, Cause))
_SHOWN = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedCheckpoint:
    """A checkpoint that was written after `step` updates. `time` is when it was whole, in seconds UTC; `seconds` is how
    long the slowest worker wrote its files, `stall_seconds` how long training stood still."""

    step: int
    time: float
    n_bytes: int
    seconds: float
    stall_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LostWorker:
    """A loss of worker `worker` (None: of a link) after `step` updates, and how it was made good.

    `found_s` is within how many seconds it was found, None if that is not known. What follows is None until it is
    known: `replaced_s` and `first_step_s`, seconds from there to the new process and to the first new step; the step
    `from_step` after which the run went on; how many steps were made again; whether they came out `identical`.
    """

    attempt: int
    time: float
    worker: int | None
    step: int
    loss: str
    cause: str
    found_s: float | None = None
    replaced_s: float | None = None
    first_step_s: float | None = None
    from_step: int | None = None
    steps_lost: int | None = None
    identical: bool | None = None


class StruckFault(NamedTuple):
    """A fault on request (`pipetrain chaos`) that has struck a worker in a step."""

    step: int
    kind: str
    worker: int


@dataclass(slots=True)
class Survival:
    """The figures since the job's first attempt. `checkpoints`, `losses` and `faults` have the last _SHOWN, the oldest
    first. `interval_s` is from the checkpoint before, or from the start of training, to the newest one. `version`
    changes with each event."""

    results: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    recoveries: int = 0
    recovery_seconds: float = 0.0
    steps_again: int = 0
    interval_s: float | None = None
    checkpoints: deque[SavedCheckpoint] = field(default_factory=lambda: deque(maxlen=_SHOWN))
    losses: deque[LostWorker] = field(default_factory=lambda: deque(maxlen=_SHOWN))
    faults: deque[StruckFault] = field(default_factory=lambda: deque(maxlen=_SHOWN))
    version: int = 0
    _since: float | None = None

    @property
    def newest(self) -> SavedCheckpoint | None:
        """The newest checkpoint; None before the first."""
        return self.checkpoints[-1] if self.checkpoints else None

    @property
    def last_recovery_s(self) -> float | None:
        """Seconds from finding the last loss that was made good to the first new step; None before the first."""
        return next((one.first_step_s for one in reversed(self.losses) if one.first_step_s is not None), None)

    def take(self, event: Mapping[str, Any]) -> None:
        """Take in a line of events.jsonl. Raises KeyError, TypeError or ValueError if it is not as runs write it."""
        kind, time = event["event"], datetime.fromisoformat(str(event["time"])).timestamp()
        if kind == "started":
            self._since = time
        elif kind in _RESULT_OF:
            self._take_checkpoint(_RESULT_OF[kind], event, time)
        elif kind == LOST:
            self._take_loss(event, time)
        elif kind == RECOVERED:
            self._take_recovery(event)
        elif kind == STRUCK:
            self.faults.append(StruckFault(int(event["step"]), str(event["kind"]), int(event["worker"])))
        elif kind == CAUGHT_UP and self.losses:
            self._last(identical=bool(event["identical"]))
        elif kind == "resumed":
            self.steps_again += int(event.get("steps_lost", 0))
            self._after(int(event["step"]))
        else:
            return
        self.version += 1

    def _take_checkpoint(self, result: str, event: Mapping[str, Any], time: float) -> None:
        if result == SAVED:
            found = SavedCheckpoint(
                step=int(event["step"]),
                time=time,
                n_bytes=int(event["bytes"]),
                seconds=float(event.get("write_seconds", event["seconds"])),
                stall_seconds=float(event["stall_seconds"]),
            )
            self.interval_s = None if self._since is None else time - self._since
            self._since = time
            self._after(found.step - 1)
            self.checkpoints.append(found)
        self.results[result] += 1

    def _after(self, step: int) -> None:
        """Forget checkpoints of later steps, which were passed over because they are damaged, or are written again."""
        while self.checkpoints and self.checkpoints[-1].step > step:
            self.checkpoints.pop()

    def _take_loss(self, event: Mapping[str, Any], time: float) -> None:
        loss = str(event["loss"])
        found = LostWorker(
            attempt=int(event.get("attempt", 1)),
            time=time,
            worker=event["worker"],
            step=int(event["step"]),
            loss=loss,
            cause=str(event["cause"]),
            found_s=event["found_s"],
        )
        self.losses.append(found)
        self.lost[loss if loss in CAUSES else "other"] += 1

    def _take_recovery(self, event: Mapping[str, Any]) -> None:
        seconds, again, begin = float(event["first_step_s"]), int(event["steps_lost"]), int(event["from_step"])
        replaced = float(event["replaced_s"])
        self.recoveries += 1
        self.recovery_seconds += seconds
        self.steps_again += again
        self._after(begin)
        if self.losses:
            self._last(replaced_s=replaced, first_step_s=seconds, from_step=begin, steps_lost=again)

    def _last(self, **known: Any) -> None:
        self.losses[-1] = replace(self.losses[-1], **known)
