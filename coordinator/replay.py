"""The dry run of a program: its laws, its times, what it keeps alive. No worker, no array.

    check(program)                  # raises InvalidSchedule with the place marked
    replay(program).bubble          # idle share, with F = I = W = 1 and B = 2
    replay(program, seconds)        # … with a duration for each action

The laws: every stage does F and then either B, or I and later W, once for each micro-batch; a stage has one worker;
and the lanes never wait for each other in a circle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from coordinator.drawing import draw
from stages.actions import Action, Kind, Lane, Program
from stages.errors import InvalidSchedule

UNIT_TIMES: Mapping[Kind, float] = {
    Kind.FORWARD: 1.0,
    Kind.BACKWARD_INPUT: 1.0,
    Kind.BACKWARD_WEIGHT: 1.0,
    Kind.BACKWARD: 2.0,
}


def unit_time(action: Action) -> float:
    """F, I and W take 1, B takes 2."""
    return UNIT_TIMES[action.kind]


@dataclass(frozen=True)
class Replay:
    """What happened in a dry run. Times are in the unit of the durations.

    `spans[w]` are (action, start, end) of worker w. `alive[s]` is the most micro-batches that stage s keeps between F
    and its weight gradient; `alive_for_input[s]` between F and its input gradient.
    """

    program: Program
    spans: tuple[tuple[tuple[Action, float, float], ...], ...]
    alive: tuple[int, ...]
    alive_for_input: tuple[int, ...]

    @property
    def makespan(self) -> float:
        """From the first action's start to the last one's end."""
        return max((lane[-1][2] for lane in self.spans if lane), default=0.0)

    @property
    def busy(self) -> tuple[float, ...]:
        """Time in which each worker works."""
        return tuple(sum(end - start for _, start, end in lane) for lane in self.spans)

    @property
    def bubble(self) -> float:
        """Idle share of all workers' time."""
        whole = self.makespan * self.program.n_workers
        return 1 - sum(self.busy) / whole if whole else 0.0


def check(program: Program) -> None:
    """Raise InvalidSchedule, naming and drawing the place, if the program breaks a law."""
    _check_placement(program)
    _check_each_once(program)
    for lane in program.lanes:
        _check_order(program, lane)
    replay(program)


def replay(
    program: Program, duration: Callable[[Action], float] = unit_time, *, weight_grad_group: int = 1
) -> Replay:
    """Perform the program on a clock. Raises InvalidSchedule if lanes wait for each other in a circle.

    With `weight_grad_group` g, a micro-batch's values live until the weight product of its group, and groups are
    done in ascending order (see stages.stage, [Note: ascending weight gradients]).
    """
    ended: dict[Action, float] = {}
    clocks = [0.0] * program.n_workers
    positions = [0] * program.n_workers
    spans: list[list[tuple[Action, float, float]]] = [[] for _ in program.lanes]
    moved = True
    while moved:
        moved = False
        for worker, lane in enumerate(program.lanes):
            while positions[worker] < len(lane):
                action = lane[positions[worker]]
                inputs = [_end_of(ended, needed) for needed in needs(action, program)]
                if None in inputs:
                    break
                start = max([clocks[worker], *(time for time in inputs if time is not None)])
                clocks[worker] = ended[action] = start + duration(action)
                spans[worker].append((action, start, clocks[worker]))
                positions[worker] += 1
                moved = True
    stuck = [lane[position] for lane, position in zip(program.lanes, positions, strict=True) if position < len(lane)]
    if stuck:
        raise _deadlock(program, stuck, ended)
    alive, alive_for_input = _peaks(program, weight_grad_group)
    return Replay(program, tuple(tuple(lane) for lane in spans), alive, alive_for_input)


def needs(action: Action, program: Program) -> tuple[Action, ...]:
    """The actions whose results `action` takes in. A needed I may be done as the first half of a B."""
    s, j = action.stage, action.micro_batch
    if action.kind is Kind.FORWARD:
        return (Action(s - 1, Kind.FORWARD, j),) if s else ()
    if action.kind is Kind.BACKWARD_WEIGHT:
        return (Action(s, Kind.BACKWARD_INPUT, j),)
    own = Action(s, Kind.FORWARD, j)
    return (own, Action(s + 1, Kind.BACKWARD_INPUT, j)) if s + 1 < program.n_stages else (own,)


def _end_of(ended: Mapping[Action, float], needed: Action) -> float | None:
    found = ended.get(needed)
    if found is None and needed.kind is Kind.BACKWARD_INPUT:
        return ended.get(Action(needed.stage, Kind.BACKWARD, needed.micro_batch))
    return found


# laws ------------------------------------------------------------------------------------------------------------


def _check_placement(program: Program) -> None:
    holder: dict[int, int] = {}
    for worker, lane in enumerate(program.lanes):
        for action in lane:
            if not (action.stage < program.n_stages and action.micro_batch < program.n_micro_batches):
                raise _broken(program, action, f"is outside {program.n_stages} stages × {program.n_micro_batches} micro-batches")
            if holder.setdefault(action.stage, worker) != worker:
                other = holder[action.stage]
                raise _broken(program, action, f"stage {action.stage} is on worker {other} and on worker {worker}")


def _check_each_once(program: Program) -> None:
    counts = Counter(action for lane in program.lanes for action in lane)
    for action, count in counts.items():
        if count > 1:
            raise _broken(program, action, f"stands {count} times")
    for stage in range(program.n_stages):
        for j in range(program.n_micro_batches):
            f, i, w, b = (counts[Action(stage, kind, j)] for kind in Kind)
            if not f:
                raise _missing(program, Action(stage, Kind.FORWARD, j))
            if b and (i or w):
                extra = Action(stage, Kind.BACKWARD_INPUT if i else Kind.BACKWARD_WEIGHT, j)
                raise _broken(program, extra, f"stands beside {Action(stage, Kind.BACKWARD, j)}, which is both I and W")
            if not b and not (i and w):
                kind = Kind.BACKWARD if not i and not w else Kind.BACKWARD_WEIGHT if i else Kind.BACKWARD_INPUT
                raise _missing(program, Action(stage, kind, j))


def _check_order(program: Program, lane: Lane) -> None:
    place = {action: position for position, action in enumerate(lane)}
    for action in lane:
        before = {Kind.BACKWARD_WEIGHT: Kind.BACKWARD_INPUT, Kind.FORWARD: None}.get(action.kind, Kind.FORWARD)
        if before is None:
            continue
        needed = Action(action.stage, before, action.micro_batch)
        if place[needed] > place[action]:
            raise _broken(program, action, f"stands before {needed}, whose result it uses")


def _missing(program: Program, action: Action) -> InvalidSchedule:
    return InvalidSchedule(f"{program.name}: {action} is missing", draw(program))


def _broken(program: Program, action: Action, why: str) -> InvalidSchedule:
    return InvalidSchedule(f"{program.name}: {action} {why}", draw(program, mark={action: "here"}))


def _deadlock(program: Program, stuck: list[Action], ended: Mapping[Action, float]) -> InvalidSchedule:
    """Name the circle: each stuck action waits for one that stands behind another stuck action."""
    holder = {action: worker for worker, lane in enumerate(program.lanes) for action in lane}
    front = {holder[action]: action for action in stuck}
    circle, action = [], stuck[0]
    while action not in [at for at, _ in circle]:
        missing = next(needed for needed in needs(action, program) if _end_of(ended, needed) is None)
        if missing not in holder:  # its I is the first half of a B
            missing = Action(missing.stage, Kind.BACKWARD, missing.micro_batch)
        circle.append((action, missing))
        action = front[holder[missing]]
    start = [at for at, _ in circle].index(action)
    told = ", ".join(f"{at} waits for {missing}" for at, missing in circle[start:])
    drawing = draw(program, mark=dict.fromkeys((at for at, _ in circle[start:]), "stuck"))
    return InvalidSchedule(f"{program.name}: the workers wait for each other: {told}", drawing)


# memory ----------------------------------------------------------------------------------------------------------


def _peaks(program: Program, group: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    alive, for_input = [0] * program.n_stages, [0] * program.n_stages
    for lane in program.lanes:
        for stage in {action.stage for action in lane}:
            own = [action for action in lane if action.stage == stage]
            alive[stage], for_input[stage] = _stage_peaks(own, program.n_micro_batches, group)
    return tuple(alive), tuple(for_input)


def _stage_peaks(lane: list[Action], m: int, group: int) -> tuple[int, int]:
    held: set[int] = set()
    waiting: set[int] = set()
    marked: set[int] = set()
    following, peak, peak_for_input = 0, 0, 0
    for action in lane:
        if action.kind is Kind.FORWARD:
            held.add(action.micro_batch)
            waiting.add(action.micro_batch)
        if action.kind in (Kind.BACKWARD, Kind.BACKWARD_INPUT):
            waiting.discard(action.micro_batch)
        if action.kind in (Kind.BACKWARD, Kind.BACKWARD_WEIGHT):
            marked.add(action.micro_batch)
        while following < m and marked.issuperset(members := range(following, min(following + group, m))):
            held.difference_update(members)
            following = members.stop
        peak, peak_for_input = max(peak, len(held)), max(peak_for_input, len(waiting))
    return peak, peak_for_input
