"""Programs for tests: written as text, or drawn at random; and a naive machine that performs them."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from coordinator.job.schedule_names import fewest_micro_batches
from coordinator.schedules import SCHEDULES, build
from stages.actions import Action, Kind, Lane, Program

F, I, W, B = Kind.FORWARD, Kind.BACKWARD_INPUT, Kind.BACKWARD_WEIGHT, Kind.BACKWARD  # noqa: E741


def program(*lanes: str, stages: int | None = None, micro_batches: int | None = None) -> Program:
    """Return the program of lanes given as text, unchecked: `program("0F0 0B0")`. Its largest numbers give its size."""
    parsed = tuple(tuple(Action.parse(word) for word in lane.split()) for lane in lanes)
    actions = [action for lane in parsed for action in lane]
    n_stages = 1 + max(action.stage for action in actions) if stages is None else stages
    m = 1 + max(action.micro_batch for action in actions) if micro_batches is None else micro_batches
    return Program("test", n_stages, m, parsed)


def words(lanes: tuple[Lane, ...]) -> list[str]:
    """Return lanes as `program` takes them."""
    return [" ".join(map(str, lane)) for lane in lanes]


@st.composite
def built_in(draw: st.DrawFn, most_stages: int = 9, most_micro_batches: int = 24) -> Program:
    """Draw any built-in schedule of any size."""
    name, n_stages = draw(st.sampled_from(sorted(SCHEDULES))), draw(st.integers(1, most_stages))
    n_workers = draw(st.integers(1, n_stages))
    fewest = fewest_micro_batches(name, n_workers)
    m = draw(st.integers(fewest, max(fewest, most_micro_batches)))
    return build(name, n_stages=n_stages, n_micro_batches=m, n_workers=n_workers)


@st.composite
def anything_valid(draw: st.DrawFn, most_stages: int = 5, most_micro_batches: int = 5) -> Program:
    """Draw a program with stages on any workers, actions in any order that can be performed, and any of B, I, W."""
    n_stages, m = draw(st.integers(1, most_stages)), draw(st.integers(1, most_micro_batches))
    return shuffled_program(n_stages, m, draw(st.integers(0, 2**32)))


def shuffled_program(n_stages: int, n_micro_batches: int, seed: int, placement: list[int] | None = None) -> Program:
    """Perform ready actions at random until all are done. Return the performed actions as a program."""
    chance = random.Random(seed)
    n_workers = chance.randint(1, n_stages) if placement is None else 1 + max(placement)
    if placement is None:
        placement = [*range(n_workers), *(chance.randrange(n_workers) for _ in range(n_stages - n_workers))]
        chance.shuffle(placement)
    lanes: list[list[Action]] = [[] for _ in range(n_workers)]
    machine = Machine(n_stages)
    while choices := [
        action
        for s in range(n_stages)
        for j in range(n_micro_batches)
        for kind in Kind
        if machine.can(action := Action(s, kind, j))
    ]:
        action = chance.choice(choices)
        machine.do(action)
        lanes[placement[action.stage]].append(action)
    return Program("shuffled", n_stages, n_micro_batches, tuple(map(tuple, lanes)))


class Machine:
    """Knows which actions are done, and so which are possible: only the meaning of F, I, W and B."""

    def __init__(self, n_stages: int) -> None:
        self._last = n_stages - 1
        self.done: set[tuple[int, Kind, int]] = set()

    def can(self, action: Action) -> bool:
        """Whether all its inputs exist and it was not done before."""
        s, j = action.stage, action.micro_batch
        done = {kind: (s, kind, j) in self.done for kind in (F, I, W)}
        if action.kind is F:
            return not done[F] and (s == 0 or (s - 1, F, j) in self.done)
        if action.kind is W:
            return done[I] and not done[W]
        return done[F] and not done[I] and (s == self._last or (s + 1, I, j) in self.done)

    def do(self, action: Action) -> None:
        """Record the action as done; a B as its I and its W."""
        for kind in (I, W) if action.kind is B else (action.kind,):
            self.done.add((action.stage, kind, action.micro_batch))


def really_performable(program: Program) -> bool:
    """Let workers do their lanes one action after the other, waiting for inputs; at the end all must be done, once."""
    machine, places, homes = Machine(program.n_stages), [0] * program.n_workers, dict[int, int]()
    if not all(program.lanes):
        return False
    moved = True
    while moved:
        moved = False
        for worker, lane in enumerate(program.lanes):
            while places[worker] < len(lane) and machine.can(action := lane[places[worker]]):
                if homes.setdefault(action.stage, worker) != worker:
                    return False
                machine.do(action)
                places[worker] += 1
                moved = True
    everything = {(s, k, j) for s in range(program.n_stages) for k in (F, I, W) for j in range(program.n_micro_batches)}
    return places == [len(lane) for lane in program.lanes] and machine.done == everything
