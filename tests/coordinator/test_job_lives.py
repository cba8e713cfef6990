"""A few lives of a job in full, and the data that its last state keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from coordinator.queue.happenings import (
    Admitted,
    ClusterLost,
    Happening,
    Preparation,
    RunFailed,
    RunFinished,
    RunnerLost,
    RunStopped,
    Started,
    StopRequested,
)
from coordinator.queue.job_states import (
    MOST_ATTEMPTS,
    Failed,
    Queued,
    Recovering,
    Running,
    Starting,
    State,
    Stopped,
    Succeeded,
    decide,
)
from coordinator.queue.state_texts import exit_code, reason


def _tell(*happenings: Happening) -> str:
    """Return a life from the queue on, a line a happening: the state, its reason, the commands."""
    state: State = Queued()
    lines = []
    for happening in happenings:
        state, commands = decide(state, happening)
        does = "".join(f" → {command}" for command in commands).replace(", grace=None", "")
        lines.append(f"{type(happening).__name__}: {state.name}{f' ({said})' if (said := reason(state)) else ''}{does}")
    return "\n".join([*lines, f"exit {exit_code(state)}"])


LIVES: dict[str, tuple[Sequence[Happening], str]] = {
    "it trains": (
        [Admitted(), Preparation("starting 4 workers"), Started(), RunFinished(), StopRequested(1.0)],
        """
        Admitted: STARTING (starting its runner) → Launch(attempt=1)
        Preparation: STARTING (starting 4 workers)
        Started: RUNNING
        RunFinished: SUCCEEDED
        StopRequested: SUCCEEDED
        exit 0
        """,
    ),
    "Ray is killed under it, then it is stopped": (
        [
            *(Admitted(), Started(), ClusterLost("Ray was lost"), Admitted(), Started()),
            *(StopRequested(1.0), StopRequested(2.0, now=True), RunnerLost("its runner was ended")),
        ],
        """
        Admitted: STARTING (starting its runner) → Launch(attempt=1)
        Started: RUNNING
        ClusterLost: RECOVERING (Ray was lost; attempt 2 starts when there is room)
        Admitted: STARTING (starting its runner) → Launch(attempt=2)
        Started: RUNNING (attempt 2)
        StopRequested: RUNNING (stopping: finishes the steps in progress and saves) → SendStop(attempt=2, now=False)
        StopRequested: RUNNING (ending its processes) → SendStop(attempt=2, now=True)
        RunnerLost: STOPPED (stopped at once, nothing saved)
        exit 3
        """,
    ),
    "it is stopped while it starts": (
        [Admitted(), StopRequested(1.0), Preparation("reading its data"), Started(), RunStopped(7, True, 7)],
        """
        Admitted: STARTING (starting its runner) → Launch(attempt=1)
        StopRequested: STARTING (stopping: finishes the steps in progress and saves) → SendStop(attempt=1, now=False)
        Preparation: STARTING (stopping: finishes the steps in progress and saves)
        Started: RUNNING (stopping: finishes the steps in progress and saves)
        RunStopped: STOPPED (stopped at step 7, weights saved)
        exit 130
        """,
    ),
    "it is stopped in the queue": (
        [StopRequested(1.0), StopRequested(2.0, now=True)],
        """
        StopRequested: STOPPED (stopped in the queue, before it began)
        StopRequested: STOPPED (stopped in the queue, before it began)
        exit 130
        """,
    ),
    "it is stopped while it waits for its second life": (
        [Admitted(), ClusterLost("the service was shut down", planned=True), StopRequested(1.0)],
        """
        Admitted: STARTING (starting its runner) → Launch(attempt=1)
        ClusterLost: RECOVERING (the service was shut down; attempt 2 starts when there is room)
        StopRequested: STOPPED (stopped after the service was shut down, before it began again)
        exit 130
        """,
    ),
    "Ray goes while it stops": (
        [Admitted(), Started(), StopRequested(1.0), ClusterLost("Ray was lost")],
        """
        Admitted: STARTING (starting its runner) → Launch(attempt=1)
        Started: RUNNING
        StopRequested: RUNNING (stopping: finishes the steps in progress and saves) → SendStop(attempt=1, now=False)
        ClusterLost: STOPPED (was to stop when Ray was lost; nothing saved)
        exit 3
        """,
    ),
    "its data is wrong": (
        [Admitted(), RunFailed("rows.csv: has no column 'y'\nand more", "InvalidData", mistake=True)],
        """
        Admitted: STARTING (starting its runner) → Launch(attempt=1)
        RunFailed: FAILED (rows.csv: has no column 'y')
        exit 2
        """,
    ),
    "it says nothing of why it failed": (
        [Admitted(), Started(), RunFailed("", "KeyError")],
        """
        Admitted: STARTING (starting its runner) → Launch(attempt=1)
        Started: RUNNING
        RunFailed: FAILED (KeyError)
        exit 1
        """,
    ),
}


@pytest.mark.parametrize("life", LIVES)
def test_a_life(life: str) -> None:
    happenings, told = LIVES[life]
    assert _tell(*happenings).splitlines() == [line.strip() for line in told.strip().splitlines()]


def test_a_job_under_which_ray_always_goes_is_given_up() -> None:
    told = _tell(*[happening for _ in range(MOST_ATTEMPTS) for happening in (Admitted(), ClusterLost("Ray was lost"))])
    assert told.splitlines()[-4:] == [
        "ClusterLost: RECOVERING (Ray was lost; attempt 5 starts when there is room)",
        "Admitted: STARTING (starting its runner) → Launch(attempt=5)",
        "ClusterLost: FAILED (Ray was lost, for the 5th time; not started again)",
        "exit 1",
    ]


CAUSE_AND_EVIDENCE: list[tuple[Happening, Callable[[int], State]]] = [
    (RunFinished(), lambda n: Succeeded(attempt=n)),
    (RunStopped(0, saved=False), lambda n: Stopped(attempt=n, how="stopped before its first step; nothing was saved")),
    (
        RunFailed("a\nb", "Kind", True, "trace"),
        lambda n: Failed(attempt=n, cause="a\nb", kind="Kind", mistake=True, traceback="trace"),
    ),
    (RunnerLost("gone"), lambda n: Failed(attempt=n, cause="gone", kind="RunnerLost")),
    (ClusterLost("lost"), lambda n: Recovering(attempt=n + 1, cause="lost", lost=1)),
]


@pytest.mark.parametrize(("happening", "expected"), CAUSE_AND_EVIDENCE)
@pytest.mark.parametrize("active", [Starting, Running])
def test_evidence_is_kept(active: Any, happening: Happening, expected: Callable[[int], State]) -> None:
    assert decide(active(attempt=3), happening) == (expected(3), [])
