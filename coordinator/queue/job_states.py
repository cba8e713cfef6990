"""The life of a submitted job, decided without I/O: (state, what happened) → (state, what to do).

    QUEUED ──► STARTING ──► RUNNING ──► SUCCEEDED
      ▲ │         │ ▲          │  └───► FAILED, STOPPED      (from every state that has not ended)
      │ └─► …     ▼ │          ▼
      │         RECOVERING ◄───┘        Ray, or the service with it, was ended under the job

A state carries its evidence. `TRANSITIONS` is the whole table; what is not in it cannot happen, and saying that it did
is a bug of ours. Whoever performs the commands first writes the new state down, so that a crash in between repeats a
command and never forgets one: every command may be performed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

MOST_ATTEMPTS = 5
"""Lives of a job's processes that Ray may end before the job is given up: it may be the job that brings Ray down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAsked:
    """Somebody wants the job to end. `now`: without finishing the step and saving the weights. `at`: seconds UTC."""

    at: float
    now: bool = False


# states ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """Waits for its turn. What for, and at which position, follows from the queue as it stands."""

    name: ClassVar[str] = "QUEUED"
    ended: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Starting:
    """Its runner and workers are being started. `detail` is what is going on."""

    name: ClassVar[str] = "STARTING"
    ended: ClassVar[bool] = False
    attempt: int
    detail: str = "starting its runner"
    stop: StopAsked | None = None
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """It trains."""

    name: ClassVar[str] = "RUNNING"
    ended: ClassVar[bool] = False
    attempt: int
    stop: StopAsked | None = None
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovering:
    """Its processes are gone through no fault of its own; `attempt` is the life that comes next. Goes first.

    `lost`, in all states, counts the lives that Ray's death ended, not those that a planned shutdown did.
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
    """The first cause, on one or more lines. `mistake`: one that the user can put right (exit code 2)."""

    name: ClassVar[str] = "FAILED"
    ended: ClassVar[bool] = True
    attempt: int
    cause: str
    kind: str
    mistake: bool = False
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """Ended because it was asked to. `saved`: the weights reached are in its run directory."""

    name: ClassVar[str] = "STOPPED"
    ended: ClassVar[bool] = True
    attempt: int
    how: str
    saved: bool = False


State = Queued | Starting | Running | Recovering | Succeeded | Failed | Stopped
STATES: tuple[type[State], ...] = (Queued, Starting, Running, Recovering, Succeeded, Failed, Stopped)
STATE_NAMES: tuple[str, ...] = tuple(state.name for state in STATES)
ACTIVE: tuple[str, ...] = (Starting.name, Running.name)
"""States in which a job holds the cluster's resources."""


# what happens ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Admitted:
    """The queue's turn: the cluster has room."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """The runner says what it is doing before the first step."""

    detail: str


@dataclass(frozen=True, slots=True)
class Started:
    """All workers are there; steps begin."""


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The runner made every step and saved the model."""


@dataclass(frozen=True, slots=True)
class RunStopped:
    """The runner ended early, as it was asked to, after `step` steps."""

    step: int
    saved: bool


@dataclass(frozen=True, slots=True)
class RunFailed:
    """The runner told the first cause."""

    cause: str
    kind: str
    mistake: bool = False
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class RunnerLost:
    """The runner's process is gone, or was ended, without having told how the run ended. Ray itself is there."""

    cause: str


@dataclass(frozen=True, slots=True)
class ClusterLost:
    """Ray is gone, and with it all processes of the job. `planned`: because the service was ended."""

    cause: str
    planned: bool = False


@dataclass(frozen=True, slots=True)
class StopRequested:
    """A user asks for the end."""

    at: float
    now: bool = False


@dataclass(frozen=True, slots=True)
class Unstorable:
    """Something happened that the store can never hold: `what` it was, and why."""

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
    """Start the runner of this attempt, unless it is there."""

    attempt: int


@dataclass(frozen=True, slots=True)
class SendStop:
    """Tell the runner of this attempt to stop; `now`: end its processes."""

    attempt: int
    now: bool


Command = Launch | SendStop
Decision = tuple[State, Sequence[Command]]


class InvalidTransition(AssertionError):
    """A bug of ours: something was said to happen to a job that cannot happen in its state."""


def decide(state: State, happening: Happening) -> Decision:
    """The state that follows, and what to do about it. Raises InvalidTransition for a pair that is not in the table."""
    rule = TRANSITIONS.get((type(state), type(happening)))
    if rule is None:
        raise InvalidTransition(f"{type(happening).__name__} cannot happen to a job that is {state.name}: {state}")
    decision: Decision = rule(state, happening)
    return decision


def _launch_first(state: Queued, _: Admitted) -> Decision:
    return Starting(attempt=1), [Launch(1)]


def _launch_again(state: Recovering, _: Admitted) -> Decision:
    return Starting(attempt=state.attempt, lost=state.lost), [Launch(state.attempt)]


def _detail(state: Starting, happening: Preparation) -> Decision:
    return replace(state, detail=happening.detail), []


def _run(state: Starting, _: Started) -> Decision:
    return Running(attempt=state.attempt, stop=state.stop, lost=state.lost), []


def _succeed(state: Starting | Running, _: RunFinished) -> Decision:
    return Succeeded(attempt=state.attempt), []


def _stopped(state: Starting | Running, happening: RunStopped) -> Decision:
    how = (
        f"stopped at step {happening.step}, weights saved"
        if happening.saved
        else "stopped before its first step; nothing was saved"
    )
    return Stopped(attempt=state.attempt, how=how, saved=happening.saved), []


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
        return Stopped(attempt=state.attempt, how="stopped at once, nothing saved"), []
    return Failed(attempt=state.attempt, cause=lost.cause, kind="RunnerLost"), []


def _cluster_lost(state: Starting | Running, lost: ClusterLost) -> Decision:
    if state.stop is not None:
        return Stopped(attempt=state.attempt, how=f"was to stop when {lost.cause}; nothing saved"), []
    times = state.lost + (not lost.planned)
    if not lost.planned and times >= MOST_ATTEMPTS:
        cause = f"{lost.cause}, for the {times}th time; not started again"
        return Failed(attempt=state.attempt, cause=cause, kind="ClusterLost"), []
    return Recovering(attempt=state.attempt + 1, cause=lost.cause, lost=times), []


def _stop_waiting(state: Queued, _: StopRequested) -> Decision:
    return Stopped(attempt=0, how="stopped in the queue, before it began"), []


def _stop_recovering(state: Recovering, _: StopRequested) -> Decision:
    return Stopped(attempt=state.attempt - 1, how=f"stopped after {state.cause}, before it began again"), []


def _ask_to_stop(state: Starting | Running, asked: StopRequested) -> Decision:
    before = state.stop
    if before is not None and (before.now or not asked.now):
        return state, [SendStop(state.attempt, before.now)]  # asked already; telling it twice does no harm
    stop = StopAsked(at=asked.at, now=asked.now)
    return replace(state, stop=stop), [SendStop(state.attempt, stop.now)]


def _give_up(state: Queued | Starting | Running | Recovering, happening: Unstorable) -> Decision:
    attempt = 0 if isinstance(state, Queued) else state.attempt - isinstance(state, Recovering)
    return Failed(attempt=attempt, cause=f"cannot be stored: {happening.what}", kind="Unstorable"), []


def _nothing(state: State, _: Happening) -> Decision:
    return state, []


TRANSITIONS: dict[tuple[type[State], type[Happening]], Callable[[Any, Any], Decision]] = {
    (Queued, Admitted): _launch_first,
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
    (Recovering, Admitted): _launch_again,
    (Recovering, StopRequested): _stop_recovering,
    **{(alive, Unstorable): _give_up for alive in (Queued, Starting, Running, Recovering)},
    **{(ended, StopRequested): _nothing for ended in (Succeeded, Failed, Stopped)},
}


# what it says ------------------------------------------------------------------------------------------------------


def reason(state: State) -> str:
    """One line: why the job is in this state. A queued job's reason comes from the queue (`job_queue.py`)."""
    match state:
        case Starting() | Running() if state.stop is not None:
            return "ending its processes" if state.stop.now else "asked to stop: finishes the steps under way and saves"
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
    """Of a command that follows the job; None while it has not ended."""
    match state:
        case Succeeded():
            return 0
        case Failed():
            return 2 if state.mistake else 1
        case Stopped():
            return 130
    return None


def to_document(state: State) -> dict[str, Any]:
    """The state's evidence as plain values, for the store. `from_document` reads it."""
    return asdict(state)


def from_document(name: str, document: dict[str, Any]) -> State:
    """The state that `to_document` wrote, given its name."""
    (kind,) = (kind for kind in STATES if kind.name == name)
    stop = document.get("stop")
    if isinstance(stop, dict):
        document = {**document, "stop": StopAsked(**stop)}
    state: State = kind(**document)
    return state
