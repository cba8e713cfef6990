"""The states of a submitted job, decided without I/O: (state, happening) → (state, commands).

    QUEUED ──► STARTING ──► RUNNING ──► SUCCEEDED
      ▲ │         │ ▲          │  └───► FAILED, STOPPED      (from every state that has not ended)
      │ └─► …     ▼ │          ▼
      │         RECOVERING ◄───┘        Ray ended while the job was active, alone or with the service

A state has the data that belong to it. `TRANSITIONS` is the whole table: a pair that is not in it cannot happen, and
reporting it is a bug of pipetrain. The service stores the new state before it performs the commands, so that after a
crash a command is repeated and never forgotten: every command may be performed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

MOST_ATTEMPTS = 5
"""A job fails after Ray has ended this many of its attempts, because the job itself may make Ray crash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAsked:
    """A user has requested the job's end at `at` (seconds UTC). With `now`, the job does not finish its step and saves
    no weights."""

    at: float
    now: bool = False


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

    `lost`, in all states, counts the attempts that ended because Ray died, without those ended by a planned shutdown.
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


# what happens ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Admitted:
    """It is the job's turn, and it fits into the cluster."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """The runner reports what it is doing before the first step."""

    detail: str


@dataclass(frozen=True, slots=True)
class Started:
    """All workers have started; the steps begin."""


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The runner made every step and saved the model."""


@dataclass(frozen=True, slots=True)
class RunStopped:
    """The runner ended early after `step` steps, because it was stopped. `saved`: its weights are saved. `checkpoint`:
    the step of its newest checkpoint; None if it has none."""

    step: int
    saved: bool
    checkpoint: int | None = None


@dataclass(frozen=True, slots=True)
class RunFailed:
    """The runner reported a failure with its first cause."""

    cause: str
    kind: str
    mistake: bool = False
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class RunnerLost:
    """The runner's process died or was killed without reporting how the run ended. Ray itself still runs."""

    cause: str


@dataclass(frozen=True, slots=True)
class ClusterLost:
    """Ray ended, and with it all processes of the job. `planned`: because the service was shut down."""

    cause: str
    planned: bool = False


@dataclass(frozen=True, slots=True)
class StopRequested:
    """A user requests the job's end."""

    at: float
    now: bool = False


@dataclass(frozen=True, slots=True)
class Unstorable:
    """Something happened that the store can never hold: `what` says what, and why."""

    what: str


Happening = (
    Admitted
    | Preparation
    | Started
    | RunFinished
    | RunStopped
    | RunFailed
    | RunnerLost
    | ClusterLost
    | StopRequested
    | Unstorable
)


# what to do --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Launch:
    """Start the runner of this attempt, unless it runs already."""

    attempt: int


@dataclass(frozen=True, slots=True)
class SendStop:
    """Order the runner of this attempt to stop; with `now`, end its processes."""

    attempt: int
    now: bool


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
    lost = happening.step > 0 and happening.checkpoint != happening.step
    return Stopped(attempt=state.attempt, how=stop_text(happening), saved=happening.saved, lost=lost), []


def stop_text(stopped: RunStopped) -> str:
    """Return how a run was stopped, and what of it is saved."""
    step, newest = stopped.step, stopped.checkpoint
    if not step:
        return "stopped before its first step; nothing was saved"
    if stopped.saved:
        return f"stopped at step {step}, weights saved" + ("" if newest == step else ", but no checkpoint")
    if newest == step:
        return f"stopped at step {step}, checkpoint saved; its grace was over before the weights were"
    until = "nothing is saved" if newest is None else f"its newest checkpoint is of step {newest}"
    return f"stopped at step {step}; its grace was over before it was saved: {until}"


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
    return Failed(attempt=state.attempt, cause=lost.cause, kind="RunnerLost"), []


def _cluster_lost(state: Starting | Running, lost: ClusterLost) -> Decision:
    if state.stop is not None:
        return Stopped(attempt=state.attempt, how=f"was to stop when {lost.cause}; nothing saved", lost=True), []
    times = state.lost + (not lost.planned)
    if not lost.planned and times >= MOST_ATTEMPTS:
        cause = f"{lost.cause}, for the {times}th time; not started again"
        return Failed(attempt=state.attempt, cause=cause, kind="ClusterLost"), []
    return Recovering(attempt=state.attempt + 1, cause=lost.cause, lost=times), []


def _stop_waiting(state: Queued, _: StopRequested) -> Decision:
    before = state.attempt - 1
    return Stopped(attempt=before, how=f"stopped in the queue, before it began{' again' if before else ''}"), []


def _stop_recovering(state: Recovering, _: StopRequested) -> Decision:
    return Stopped(attempt=state.attempt - 1, how=f"stopped after {state.cause}, before it began again"), []


def _ask_to_stop(state: Starting | Running, asked: StopRequested) -> Decision:
    before = state.stop
    if before is not None and (before.now or not asked.now):
        return state, [SendStop(state.attempt, before.now)]  # requested already; sending it twice does no harm
    stop = StopAsked(at=asked.at, now=asked.now)
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
    (Running, RunFinished): _succeed,
    (Running, RunStopped): _stopped,
    (Running, RunFailed): _fail,
    (Running, RunnerLost): _runner_lost,
    (Running, ClusterLost): _cluster_lost,
    (Running, StopRequested): _ask_to_stop,
    (Recovering, Admitted): _launch,
    (Recovering, StopRequested): _stop_recovering,
    **{(alive, Unstorable): _give_up for alive in (Queued, Starting, Running, Recovering)},
    **{(ended, StopRequested): _nothing for ended in (Succeeded, Failed, Stopped)},
}


# how it is shown ---------------------------------------------------------------------------------------------------


def reason(state: State) -> str:
    """Return one line: why the job is in this state. A queued job's reason comes from the queue (`job_queue.py`)."""
    match state:
        case Starting() | Running() if state.stop is not None:
            return "ending its processes" if state.stop.now else "stopping: finishes the steps in progress and saves"
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
