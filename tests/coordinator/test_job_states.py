"""The table of a job's states: its laws along every life that a job can have."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from coordinator.queue.job_states import (
    ACTIVE,
    MOST_ATTEMPTS,
    STATE_NAMES,
    STATES,
    TRANSITIONS,
    Command,
    Failed,
    InvalidTransition,
    Launch,
    Queued,
    Recovering,
    Running,
    SendStop,
    Starting,
    State,
    StopAsked,
    Stopped,
    Succeeded,
    decide,
)
from coordinator.queue.state_texts import exit_code, from_document, reason, to_document

# The service's own causes are one line (`run_events`, `ray_keeper`, `ray_agent`); only a run's cause may have several.
LINES = st.text("abc:,'\"%ä…", min_size=1, max_size=8)
TEXTS = st.text("ab\n\t\\\0\U0001f642", max_size=8)
CAUSES = st.builds("\n".join, st.lists(LINES, min_size=1, max_size=3))
ATTEMPTS = st.integers(1, 2 * MOST_ATTEMPTS)
LOST = st.integers(0, MOST_ATTEMPTS - 1)
TIMES = st.floats(0, 1e12)
GRACES = st.none() | st.floats(0, 86_400)
STOPS = st.none() | st.builds(StopAsked, at=TIMES, now=st.booleans(), grace=GRACES)

STATE: dict[type[State], st.SearchStrategy[State]] = {
    Queued: st.builds(Queued, attempt=ATTEMPTS, why=st.just("") | LINES, lost=LOST),
    Starting: st.builds(Starting, attempt=ATTEMPTS, detail=LINES, stop=STOPS, lost=LOST),
    Running: st.builds(Running, attempt=ATTEMPTS, stop=STOPS, lost=LOST),
    Recovering: st.builds(Recovering, attempt=ATTEMPTS.map(lambda n: n + 1), cause=LINES, lost=LOST),
    Succeeded: st.builds(Succeeded, attempt=ATTEMPTS),
    Failed: st.builds(Failed, attempt=ATTEMPTS, cause=CAUSES, kind=LINES, mistake=st.booleans(), traceback=TEXTS),
    Stopped: st.builds(Stopped, attempt=st.just(0) | ATTEMPTS, how=LINES, saved=st.booleans()),
}
NEW: st.SearchStrategy[State] = st.just(Queued())
HAPPENING: dict[type[Happening], st.SearchStrategy[Happening]] = {
    Admitted: st.just(Admitted()),
    Preparation: st.builds(Preparation, LINES),
    Started: st.just(Started()),
    RunFinished: st.just(RunFinished()),
    RunStopped: st.builds(RunStopped, st.integers(0, 10**9), st.booleans(), st.none() | st.integers(1, 10**9)),
    RunFailed: st.builds(RunFailed, CAUSES, LINES, st.booleans(), TEXTS),
    RunnerLost: st.builds(RunnerLost, LINES, st.booleans()),
    ClusterLost: st.builds(ClusterLost, LINES, st.booleans()),
    StopRequested: st.builds(StopRequested, TIMES, st.booleans(), GRACES),
    Displaced: st.builds(Displaced, TIMES, LINES),
    ServiceEnds: st.builds(ServiceEnds, TIMES),
    Unstorable: st.builds(Unstorable, LINES),
}
ENDS = (RunFinished, RunStopped, RunFailed, RunnerLost, ClusterLost)
ACTIVE_STATES, ENDED_STATES = (Starting, Running), (Succeeded, Failed, Stopped)
ANY_STATE, ANY_HAPPENING = st.one_of(*STATE.values()), st.one_of(*HAPPENING.values())

Life = list[tuple[State, Happening, State, Sequence[Command]]]


@st.composite
def lives(draw: st.DrawFn, *, start: st.SearchStrategy[State] = NEW, most: int = 12) -> Life:
    """Draw what may happen to a job, one happening after the other: (before, happening, after, commands)."""
    state, life = draw(start), Life()
    for _ in range(draw(st.integers(0, most))):
        possible = [happening for at, happening in TRANSITIONS if at is type(state)]
        happening = draw(HAPPENING[draw(st.sampled_from(possible))])
        after, commands = decide(state, happening)
        life.append((state, happening, after, commands))
        state = after
    return life


def _lives_so_far(state: State) -> int:
    """Return how many times its processes were started: a waiting job's `attempt` is its next one."""
    match state:
        case Queued(attempt=attempt) | Recovering(attempt=attempt):
            return attempt - 1
        case _:
            return state.attempt


def _launches(commands: Sequence[Command]) -> list[int]:
    return [command.attempt for command in commands if isinstance(command, Launch)]


def _stop(state: State) -> StopAsked | None:
    return state.stop if isinstance(state, (Starting, Running)) else None


def _pairs() -> Iterator[tuple[type[State], type[Happening]]]:
    return product(STATE, HAPPENING)


# the table ---------------------------------------------------------------------------------------------------------


def test_these_tests_know_every_state_and_every_happening() -> None:
    assert tuple(STATE) == STATES == get_args(State)
    assert tuple(HAPPENING) == get_args(Happening)
    assert tuple(kind.name for kind in STATES) == STATE_NAMES
    assert len(set(STATE_NAMES)) == len(STATES)
    assert tuple(kind for kind in STATES if kind.ended) == ENDED_STATES
    assert tuple(kind.name for kind in ACTIVE_STATES) == ACTIVE


def test_the_whole_table() -> None:
    """The happenings that each state allows: a new pair is a decision that must be made here too."""
    runs = {
        "RunFinished",
        "RunStopped",
        "RunFailed",
        "RunnerLost",
        "ClusterLost",
        "StopRequested",
        "Unstorable",
        "Displaced",
        "ServiceEnds",
    }
    assert {
        kind.name: {happening.__name__ for at, happening in TRANSITIONS if at is kind} for kind in STATES
    } == {
        "QUEUED": {"Admitted", "StopRequested", "Unstorable"},
        "STARTING": runs | {"Preparation", "Started"},
        "RUNNING": runs,
        "RECOVERING": {"Admitted", "StopRequested", "Unstorable"},
        "SUCCEEDED": {"StopRequested"},
        "FAILED": {"StopRequested"},
        "STOPPED": {"StopRequested"},
    }  # fmt: skip


@settings(max_examples=20)
@given(st.data())
def test_every_pair_gives_a_state_or_is_a_bug_of_ours(data: st.DataObject) -> None:
    for kind, what in _pairs():
        state, happening = data.draw(STATE[kind]), data.draw(HAPPENING[what])
        if (kind, what) in TRANSITIONS:
            after, commands = decide(state, happening)
            assert type(after) in STATES
            assert all(isinstance(command, (Launch, SendStop)) for command in commands)
        else:
            with pytest.raises(InvalidTransition, match=f"^{what.__name__} cannot happen to a job that is {kind.name}"):
                decide(state, happening)


@given(ANY_STATE.filter(lambda state: state.ended), HAPPENING[StopRequested])
def test_what_has_ended_stays_as_it_is(state: State, stop: Happening) -> None:
    after, commands = decide(state, stop)
    assert (after, list(commands)) == (state, [])
    assert {what for at, what in TRANSITIONS if at is type(state)} == {StopRequested}


# along a life ------------------------------------------------------------------------------------------------------


@given(lives())
def test_lives_are_counted_one_by_one_and_each_is_launched_once(life: Life) -> None:
    launched, attempt = 0, 0
    for before, happening, after, commands in life:
        assert _lives_so_far(after) >= _lives_so_far(before)
        begins = isinstance(after, Starting) and not isinstance(before, Starting)
        assert _launches(commands) == ([_lives_so_far(after)] if begins else [])
        assert begins == isinstance(happening, Admitted)
        launched += len(_launches(commands))
        assert _lives_so_far(after) == launched  # so n is 1, 2, 3, …
        if isinstance(after, (Queued, Starting, Running, Recovering)):
            assert after.attempt >= attempt
            attempt = after.attempt
        assert all(command.attempt == launched and not after.ended for command in commands)


@given(lives())
def test_a_job_that_was_asked_to_stop_is_never_launched_again(life: Life) -> None:
    asked = False
    for before, happening, after, commands in life:
        assert not (asked and _launches(commands)), (before, happening)
        asked |= isinstance(happening, StopRequested)
        assert not asked or after.ended or _stop(after) is not None  # it is not forgotten


@settings(max_examples=30)
@given(st.data())
def test_a_job_that_was_asked_to_stop_ends_with_its_processes(data: st.DataObject) -> None:
    for kind, what in product(ACTIVE_STATES, ENDS):
        active, asked = data.draw(STATE[kind]), data.draw(HAPPENING[StopRequested])
        stopping, _ = decide(active, asked)
        after, commands = decide(stopping, data.draw(HAPPENING[what]))
        assert after.ended
        assert list(commands) == []
        assert _lives_so_far(after) == _lives_so_far(active)


@given(st.one_of(STATE[Queued], STATE[Recovering]), HAPPENING[StopRequested])
def test_a_job_without_processes_is_stopped_at_once(waiting: State, asked: Happening) -> None:
    after, commands = decide(waiting, asked)
    assert isinstance(after, Stopped)
    assert (after.attempt, after.saved, list(commands)) == (_lives_so_far(waiting), False, [])


@given(st.one_of(STATE[Starting], STATE[Running]), st.lists(HAPPENING[StopRequested], min_size=1, max_size=5))
def test_the_runner_is_told_the_strictest_of_all_stops(active: State, wishes: list[StopRequested]) -> None:
    strict, state = (stop.now if (stop := _stop(active)) is not None else False), active
    graces = [] if stop is None else [stop.grace]
    for asked in wishes:
        strict |= asked.now
        graces.append(asked.grace)
        grace = min((one for one in graces if one is not None), default=None)
        state, commands = decide(state, asked)
        assert list(commands) == [SendStop(_lives_so_far(active), strict, grace)]
        stop = _stop(state)
        assert type(state) is type(active)
        assert stop is not None
        assert stop.now == strict


@given(st.one_of(STATE[Starting], STATE[Running]), HAPPENING[ClusterLost])
def test_a_job_that_was_not_to_stop_goes_on_after_a_loss_of_the_cluster(active: State, lost: ClusterLost) -> None:
    assert isinstance(active, (Starting, Running))
    after, commands = decide(replace(active, stop=None), lost)
    assert list(commands) == []
    times = active.lost + (not lost.planned)
    if lost.planned or times < MOST_ATTEMPTS:
        assert after == Recovering(attempt=active.attempt + 1, cause=lost.cause, lost=times)
    else:
        assert isinstance(after, Failed)
        assert (after.attempt, after.kind, after.mistake) == (active.attempt, "ClusterLost", False)
        assert after.cause.startswith(lost.cause)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30))
def test_ray_may_end_so_many_lives_and_the_service_any_number(losses: list[tuple[bool, bool]]) -> None:
    """`losses` has for each attempt whether its end is planned, and whether its steps had begun. Planned ends must not
    count: else a job that survives four restarts of the service fails at the first death of Ray."""
    state: State = Queued()
    for n, (planned, begun) in enumerate(losses, 1):
        state, _ = decide(state, Admitted())
        state, _ = decide(state, Started()) if begun else (state, ())
        state, _ = decide(state, ClusterLost("Ray was lost", planned))
        deaths = sum(not planned for planned, _ in losses[:n])
        if deaths == MOST_ATTEMPTS:
            cause = f"Ray was lost, for the {deaths}th time; not started again"
            assert state == Failed(attempt=n, cause=cause, kind="ClusterLost")
            return
        assert state == Recovering(attempt=n + 1, cause="Ray was lost", lost=deaths)


@given(st.one_of(STATE[Starting], STATE[Running]), HAPPENING[Displaced], HAPPENING[RunStopped])
def test_a_job_that_makes_room_goes_back_to_the_queue_with_the_reason(
    active: State, displaced: Displaced, stopped: RunStopped
) -> None:
    assert isinstance(active, (Starting, Running))
    leaving, commands = decide(replace(active, stop=None), displaced)
    assert list(commands) == [SendStop(active.attempt, now=False)]
    assert displaced.room_for in reason(leaving)
    assert decide(leaving, displaced) == (leaving, []), "it leaves already"
    after, commands = decide(leaving, stopped)
    assert isinstance(after, Queued)
    assert (after.attempt, after.lost, list(commands)) == (active.attempt + 1, active.lost, [])
    assert after.why.startswith(f"preempted by job {displaced.room_for} ")
    assert (f"step {stopped.step}" in after.why) == (stopped.step > 0)
    assert ("newest checkpoint" in after.why) == stopped.lost


@given(st.one_of(STATE[Starting], STATE[Running]), HAPPENING[ServiceEnds], HAPPENING[RunStopped], st.booleans())
def test_a_job_that_saves_because_the_service_ends_goes_on_before_all_that_wait(
    active: State, ends: ServiceEnds, stopped: RunStopped, in_time: bool
) -> None:
    assert isinstance(active, (Starting, Running))
    saving, commands = decide(replace(active, stop=None), ends)
    assert list(commands) == [SendStop(active.attempt, now=False)]
    after, _ = decide(saving, stopped if in_time else ClusterLost("the service was shut down", planned=True))
    assert isinstance(after, Recovering)
    assert (after.attempt, after.lost) == (active.attempt + 1, active.lost)
    assert after.cause.startswith("the service was shut down")
    assert not in_time or stopped.text in after.cause


@given(
    st.one_of(STATE[Starting], STATE[Running]),
    st.one_of(HAPPENING[Displaced], HAPPENING[ServiceEnds]),
    st.booleans(),
    st.data(),
)
def test_a_user_who_stops_a_job_that_makes_room_is_obeyed(
    active: State, displaced: Happening, now: bool, data: st.DataObject
) -> None:
    assert isinstance(active, (Starting, Running))
    leaving, _ = decide(replace(active, stop=None), displaced)
    stopping, commands = decide(leaving, StopRequested(1.0, now))
    assert list(commands) == [SendStop(active.attempt, now)]
    assert decide(stopping, displaced) == (stopping, [])
    assert decide(stopping, data.draw(HAPPENING[data.draw(st.sampled_from(ENDS))]))[0].ended


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30))
def test_a_runner_that_dies_again_and_again_is_given_up(losses: list[tuple[bool, bool]]) -> None:
    """`losses` has for each attempt whether Ray died, and whether the job had to make room then."""
    state: State = Queued()
    for n, (of_ray, displaced) in enumerate(losses, 1):
        state, _ = decide(state, Admitted())
        state, _ = decide(state, Displaced(1.0, "x")) if displaced else (state, ())
        state, _ = decide(state, ClusterLost("it died") if of_ray else RunnerLost("it died", again=True))
        if n == MOST_ATTEMPTS:
            assert isinstance(state, Failed)
            assert state.cause == f"it died, for the {n}th time; not started again"
            return
        assert isinstance(state, Queued if displaced else Recovering)
        assert state.lost == n


# how it is shown and stored ----------------------------------------------------------------------------------------


@given(ANY_STATE)
def test_the_document_holds_the_whole_state(state: State) -> None:
    assert from_document(state.name, json.loads(json.dumps(to_document(state)))) == state


def test_a_document_from_before_deaths_were_counted_is_read() -> None:
    stop = {"at": 1.0, "now": False}
    found = from_document("RUNNING", {"attempt": 3, "stop": stop})
    assert found == Running(attempt=3, stop=StopAsked(at=1.0), lost=0)


def test_a_document_of_a_name_that_no_state_has_is_refused() -> None:
    with pytest.raises(ValueError, match="unpack"):
        from_document("LOST", {})


@given(ANY_STATE)
def test_the_reason_is_one_line(state: State) -> None:
    said = reason(state)
    assert said.splitlines() == ([said] if said else [])
    assert said or not isinstance(state, (Starting, Recovering, Failed, Stopped))
    assert said or _stop(state) is None


@given(lives())
def test_along_a_life_too(life: Life) -> None:
    for _, _, state, _ in life:
        assert from_document(state.name, json.loads(json.dumps(to_document(state)))) == state
        assert len(reason(state).splitlines()) == (1 if reason(state) else 0)
        assert reason(state) or isinstance(state, (Queued, Running, Succeeded)), "the queue says why a job is queued"


@given(ANY_STATE)
def test_only_what_has_ended_has_an_exit_code(state: State) -> None:
    assert (exit_code(state) is None) == (not state.ended)
    assert exit_code(state) in (None, 0, 1, 2, 3, 130)
