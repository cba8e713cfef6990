"""What can happen to a submitted job. `job_states.py` decides what follows."""

from __future__ import annotations

from dataclasses import dataclass


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

    @property
    def lost(self) -> bool:
        """Whether no checkpoint has its last steps."""
        return self.step > 0 and self.checkpoint != self.step

    @property
    def text(self) -> str:
        """How the run was stopped, and what of it is saved."""
        step, newest = self.step, self.checkpoint
        if not step:
            return "stopped before its first step; nothing was saved"
        if self.saved:
            return f"stopped at step {step}, weights saved" + ("" if newest == step else ", but no checkpoint")
        if newest == step:
            return f"stopped at step {step}: its checkpoint is saved, its weights are not"
        until = "nothing is saved" if newest is None else f"its newest checkpoint is of step {newest}"
        return f"stopped at step {step}; its grace was over before it was saved: {until}"


@dataclass(frozen=True, slots=True)
class RunFailed:
    """The runner reported a failure with its first cause."""

    cause: str
    kind: str
    mistake: bool = False
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class RunnerLost:
    """The runner's process died or was killed without reporting how the run ended. Ray itself still runs. `again`:
    another attempt may succeed, because the cause may be outside of the job."""

    cause: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class ClusterLost:
    """Ray ended, and with it all processes of the job. `planned`: because the service was shut down."""

    cause: str
    planned: bool = False


@dataclass(frozen=True, slots=True)
class StopRequested:
    """A user requests the job's end. `grace`: the seconds that it may take to save; None for those of the job."""

    at: float
    now: bool = False
    grace: float | None = None


@dataclass(frozen=True, slots=True)
class Displaced:
    """The job must make room for the job `room_for`, which has a higher priority."""

    at: float
    room_for: str


@dataclass(frozen=True, slots=True)
class ServiceEnds:
    """The service is being shut down: the job must save its state, and goes on with the next service."""

    at: float


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
    | Displaced
    | ServiceEnds
    | Unstorable
)
