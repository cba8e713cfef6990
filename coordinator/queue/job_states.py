"""The states of a submitted job, decided without I/O: (state, happening) → (state, commands).

    QUEUED ──► STARTING ──► RUNNING ──► SUCCEEDED
      ▲ │         │ ▲          │  └───► FAILED, STOPPED      (from every state that has not ended)
      │ └─► …     ▼ │          ▼
      │         RECOVERING ◄───┤        Ray ended while the job was active, alone or with the service, or its runner
      └────────────────────────┘        it made room for a job of a higher priority

A state has the data that belong to it. `TRANSITIONS` is the whole table: a pair that is not in it cannot happen, and
reporting it is a bug of pipetrain. The service stores the new state before it performs the commands, so that after a
crash a command is repeated and never forgotten: every command may be performed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from coordinator.queue.happenings import (
    Admitted,
    ClusterLost,
    Displaced,
    Happening,
    Preparation,
    RunFailed,
    RunFinished,
    RunnerLost,
    RunStopped,
    ServiceEnds,
    Started,
    StopRequested,
    Unstorable,
)

SHUT_DOWN = "the service was shut down"
MOST_ATTEMPTS = 5
"""A job fails after Ray or its runner died in this many of its attempts, because the job itself may make them crash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAsked:
    """A user has requested the job's end at `at` (seconds UTC). With `now`, the job does not finish its step and saves
    no weights; `grace` is that of StopRequested. With `room_for`, it is the queue that requests it, for the job of this
    id, and with `service_ends` the service that is being shut down: then the job goes on later."""

    at: float
    now: bool = False
    room_for: str = ""
    service_ends: bool = False
    grace: float | None = None

    @property
    def goes_on(self) -> bool:
        """Whether the job goes on later."""
        return bool(self.room_for) or self.service_ends

    @property
    def preempted(self) -> str:
        """What happened to the job, as the beginning of a reason."""
        return f"preempted by job {self.room_for}"


# states ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """The job waits for its turn. Its reason and its position follow from the present queue, after `why`, what happened
    before. `attempt` is its next attempt."""

    name: ClassVar[str] = "QUEUED"
    ended: ClassVar[bool] = False
    attempt: int = 1
    why: str = ""
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Starting:
    """The job's runner and workers are being started. `detail` says what they are doing."""

    name: ClassVar[str] = "STARTING"
    ended: ClassVar[bool] = False
    attempt: int
    detail: str = "starting its runner"
    stop: StopAsked | None = None
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The job trains."""

    name: ClassVar[str] = "RUNNING"
    ended: ClassVar[bool] = False
    attempt: int
    stop: StopAsked | None = None
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovering:
    """The job's processes were lost for reasons outside the job. It is scheduled before all waiting jobs; `attempt` is
    its next attempt.

    `lost`, in all states, counts the attempts that ended because Ray or the runner died, without those ended by a
    planned shutdown.
    """

    name: ClassVar[str] = "RECOVERING"
    ended: ClassVar[bool] = False
    attempt: int
    cause: str
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """Every step was made and the model is saved."""

    name: ClassVar[str] = "SUCCEEDED"
    ended: ClassVar[bool] = True
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The job failed. `cause` is the first cause, on one or more lines; `mistake` marks a mistake that the user can
    correct (exit code 2)."""

    name: ClassVar[str] = "FAILED"
    ended: ClassVar[bool] = True
    attempt: int
    cause: str
    kind: str
    mistake: bool = False
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The job ended because a user stopped it. `saved`: its weights so far are in its run directory. `lost`: no
    checkpoint has its last steps."""

    name: ClassVar[str] = "STOPPED"
    ended: ClassVar[bool] = True
    attempt: int
    how: str
    saved: bool = False
    lost: bool = False


State = Queued | Starting | Running | Recovering | Succeeded | Failed | Stopped
STATES: tuple[type[State], ...] = (Queued, Starting, Running, Recovering, Succeeded, Failed, Stopped)
STATE_NAMES: tuple[str, ...] = tuple(state.name for state in STATES)
ACTIVE: tuple[str, ...] = (Starting.name, Running.name)
"""States in which a job holds the cluster's resources."""


# what to do --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Launch:
    """Start the runner of this attempt, unless it runs already."""

    attempt: int


@dataclass(frozen=True, slots=True)
class SendStop:
    """Order the runner of this attempt to stop, within `grace` seconds (None: within those of the job); with `now`, end
    its processes."""

    attempt: int
    now: bool
    grace: float | None = None


Command = Launch | SendStop
Decision = tuple[State, Sequence[Command]]


class InvalidTransition(AssertionError):
    """A bug of pipetrain: a happening was reported that is impossible in the job's state."""


def decide(state: State, happening: Happening) -> Decision:
    """Return the next state and the commands to perform. Raises InvalidTransition for a pair that is not in the
    table."""
    rule = TRANSITIONS.get((type(state), type(happening)))
    if rule is None:
        raise InvalidTransition(f"{type(happening).__name__} cannot happen to a job that is {state.name}: {state}")
    decision: Decision = rule(state, happening)
    return decision


def _launch(state: Queued | Recovering, _: Admitted) -> Decision:
    return Starting(attempt=state.attempt, lost=state.lost), [Launch(state.attempt)]


def _detail(state: Starting, happening: Preparation) -> Decision:
    return replace(state, detail=happening.detail), []


def _run(state: Starting, _: Started) -> Decision:
    return Running(attempt=state.attempt, stop=state.stop, lost=state.lost), []


def _succeed(state: Starting | Running, _: RunFinished) -> Decision:
    return Succeeded(attempt=state.attempt), []


def _stopped(state: Starting | Running, happening: RunStopped) -> Decision:
    if state.stop is not None and state.stop.service_ends:
        return Recovering(attempt=state.attempt + 1, cause=f"{SHUT_DOWN}, {happening.text}", lost=state.lost), []
    if state.stop is not None and state.stop.room_for:
        at = f"at step {happening.step}" if happening.step else "before its first step"
        newest = f"; its newest checkpoint is of step {happening.checkpoint or 0}" if happening.lost else ""
        return _queued_again(state, f"{state.stop.preempted} {at}{newest}"), []
    return Stopped(attempt=state.attempt, how=happening.text, saved=happening.saved, lost=happening.lost), []


def _queued_again(state: Starting | Running, why: str) -> Queued:
    return Queued(attempt=state.attempt + 1, why=why, lost=state.lost)


def _fail(state: Starting | Running, happening: RunFailed) -> Decision:
    failed = Failed(
        attempt=state.attempt,
        cause=happening.cause,
        kind=happening.kind,
        mistake=happening.mistake,
        traceback=happening.traceback,
    )
    return failed, []


def _runner_lost(state: Starting | Running, lost: RunnerLost) -> Decision:
    if state.stop is not None and state.stop.now:
        return Stopped(attempt=state.attempt, how="stopped at once, nothing saved", lost=True), []
    if not lost.again:
        return Failed(attempt=state.attempt, cause=lost.cause, kind="RunnerLost"), []
    return _lost(state, lost.cause, "RunnerLost")


def _cluster_lost(state: Starting | Running, lost: ClusterLost) -> Decision:
    return _lost(state, lost.cause, "ClusterLost", planned=lost.planned)


def _lost(state: Starting | Running, cause: str, kind: str, *, planned: bool = False) -> Decision:
    """The attempt's processes are gone, for reasons outside of the job."""
    stop, times = state.stop, state.lost + (not planned)
    if stop is not None and not stop.goes_on:
        return Stopped(attempt=state.attempt, how=f"was to stop when {cause}; nothing saved", lost=True), []
    if not planned and times >= MOST_ATTEMPTS:
        cause = f"{cause}, for the {times}th time; not started again"
        return Failed(attempt=state.attempt, cause=cause, kind=kind), []
    if stop is not None and stop.room_for:
        return replace(_queued_again(state, f"{stop.preempted} when {cause}"), lost=times), []
    return Recovering(attempt=state.attempt + 1, cause=cause, lost=times), []


def _stop_waiting(state: Queued, _: StopRequested) -> Decision:
    before = state.attempt - 1
    return Stopped(attempt=before, how=f"stopped in the queue, before it began{' again' if before else ''}"), []


def _stop_recovering(state: Recovering, _: StopRequested) -> Decision:
    return Stopped(attempt=state.attempt - 1, how=f"stopped after {state.cause}, before it began again"), []


def _ask_to_stop(state: Starting | Running, asked: StopRequested) -> Decision:
    """A request that comes again can only make it stricter, and sending it twice does no harm."""
    before, at, now, graces = state.stop, asked.at, asked.now, [asked.grace]
    if before is not None and not before.goes_on:
        at = asked.at if asked.now and not before.now else before.at
        now, graces = asked.now or before.now, [asked.grace, before.grace]
    stop = StopAsked(at=at, now=now, grace=min((one for one in graces if one is not None), default=None))
    return replace(state, stop=stop), [SendStop(state.attempt, stop.now, stop.grace)]


def _displace(state: Starting | Running, displaced: Displaced) -> Decision:
    if state.stop is not None:
        return state, []  # it leaves already
    return replace(state, stop=StopAsked(at=displaced.at, room_for=displaced.room_for)), [
        SendStop(state.attempt, False)
    ]


def _pause(state: Starting | Running, ends: ServiceEnds) -> Decision:
    if state.stop is not None:
        return state, []
    stop = StopAsked(at=ends.at, service_ends=True)
    return replace(state, stop=stop), [SendStop(state.attempt, stop.now)]


def _give_up(state: Queued | Starting | Running | Recovering, happening: Unstorable) -> Decision:
    attempt = state.attempt - isinstance(state, (Queued, Recovering))
    return Failed(attempt=attempt, cause=f"cannot be stored: {happening.what}", kind="Unstorable"), []


def _nothing(state: State, _: Happening) -> Decision:
    return state, []


TRANSITIONS: dict[tuple[type[State], type[Happening]], Callable[[Any, Any], Decision]] = {
    (Queued, Admitted): _launch,
    (Queued, StopRequested): _stop_waiting,
    (Starting, Preparation): _detail,
    (Starting, Started): _run,
    (Starting, RunFinished): _succeed,
    (Starting, RunStopped): _stopped,
    (Starting, RunFailed): _fail,
    (Starting, RunnerLost): _runner_lost,
    (Starting, ClusterLost): _cluster_lost,
    (Starting, StopRequested): _ask_to_stop,
    (Starting, Displaced): _displace,
    (Starting, ServiceEnds): _pause,
    (Running, RunFinished): _succeed,
    (Running, RunStopped): _stopped,
    (Running, RunFailed): _fail,
    (Running, RunnerLost): _runner_lost,
    (Running, ClusterLost): _cluster_lost,
    (Running, StopRequested): _ask_to_stop,
    (Running, Displaced): _displace,
    (Running, ServiceEnds): _pause,
    (Recovering, Admitted): _launch,
    (Recovering, StopRequested): _stop_recovering,
    **{(alive, Unstorable): _give_up for alive in (Queued, Starting, Running, Recovering)},
    **{(ended, StopRequested): _nothing for ended in (Succeeded, Failed, Stopped)},
}
