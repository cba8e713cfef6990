"""The laws of programs that need no clock: what must stand where, and what each action takes in.

Every stage does F and then either B, or I and later W, once for each micro-batch; a stage has one worker; and in a
lane nothing stands before what it uses. That lanes never wait for each other in a circle, `replay` finds out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from coordinator.program.drawing import draw
from stages.actions import Action, Kind, Lane, Program
from stages.errors import InvalidSchedule


def needs(action: Action, n_stages: int) -> tuple[Action, ...]:
    """The actions whose results `action` takes in. A needed I may be done as the first half of a B."""
    s, j = action.stage, action.micro_batch
    if action.kind is Kind.FORWARD:
        return (Action(s - 1, Kind.FORWARD, j),) if s else ()
    if action.kind is Kind.BACKWARD_WEIGHT:
        return (Action(s, Kind.BACKWARD_INPUT, j),)
    own = Action(s, Kind.FORWARD, j)
    return (own, Action(s + 1, Kind.BACKWARD_INPUT, j)) if s + 1 < n_stages else (own,)


def performed_as(needed: Action, there: Mapping[Action, object]) -> Action:
    """The action that does `needed`: itself, or the B whose first half it is."""
    if needed.kind is Kind.BACKWARD_INPUT and needed not in there:
        return Action(needed.stage, Kind.BACKWARD, needed.micro_batch)
    return needed


def check_laws(program: Program, *, backward: bool = True) -> None:
    """Raise InvalidSchedule, naming and drawing the place, for the first law that is broken.

    With `backward=False` the program is an evaluation: every F, and nothing else.
    """
    _check_placement(program)
    _check_each_once(program, backward)
    _check_order(program)


def _check_placement(program: Program) -> None:
    size = f"{program.n_stages} stages × {program.n_micro_batches} micro-batches"
    if min(program.n_stages, program.n_micro_batches, program.n_workers) < 1:
        raise InvalidSchedule(f"{program.name}: has {size} on {program.n_workers} workers, each must be at least 1")
    holder: dict[int, int] = {}
    for worker, lane in enumerate(program.lanes):
        if not lane:
            drawing = draw(program, notes={worker: "has nothing to do"})
            raise InvalidSchedule(f"{program.name}: worker {worker} has no action, so it holds no stage", drawing)
        for action in lane:
            if not (0 <= action.stage < program.n_stages and 0 <= action.micro_batch < program.n_micro_batches):
                raise _broken(program, worker, action, f"is outside {size}")
            other = holder.setdefault(action.stage, worker)
            if other != worker:
                raise _broken(program, worker, action, f"puts stage {action.stage} on a second worker, after {other}")


def _check_each_once(program: Program, backward: bool) -> None:
    counts: Counter[Action] = Counter()
    for worker, lane in enumerate(program.lanes):
        for action in lane:
            counts[action] += 1
            if counts[action] > 1:
                raise _broken(program, worker, action, "stands there a second time")
            if not backward and action.kind is not Kind.FORWARD:
                raise _broken(program, worker, action, "goes back, but an evaluation only goes forward")
    for stage in range(program.n_stages):
        for j in range(program.n_micro_batches):
            f, i, w, b = (bool(counts[Action(stage, kind, j)]) for kind in Kind)
            if not f:
                raise _missing(program, Action(stage, Kind.FORWARD, j))
            if b and (i or w):
                extra = Action(stage, Kind.BACKWARD_INPUT if i else Kind.BACKWARD_WEIGHT, j)
                why = f"stands beside {Action(stage, Kind.BACKWARD, j)}, which is I and W in one"
                raise _broken(program, _worker_of(program, extra), extra, why)
            if backward and not b and not (i and w):
                kind = Kind.BACKWARD_WEIGHT if i else Kind.BACKWARD_INPUT if w else Kind.BACKWARD
                raise _missing(program, Action(stage, kind, j))


def _check_order(program: Program) -> None:
    for worker, lane in enumerate(program.lanes):
        place = {action: position for position, action in enumerate(lane)}
        for action in lane:
            for needed in needs(action, program.n_stages):
                source = performed_as(needed, place)
                if place.get(source, -1) > place[action]:
                    raise _broken(program, worker, action, f"stands before {source}, whose result it uses")


def _missing(program: Program, action: Action) -> InvalidSchedule:
    """A gap, drawn where the action would stand; of a stage that nobody holds, what asks for it is marked."""
    text = f"{program.name}: {action} is missing"
    worker = next((w for w, lane in enumerate(program.lanes) if any(a.stage == action.stage for a in lane)), None)
    if worker is None:
        last = max(a for lane in program.lanes for a in lane)
        why = f"no worker holds stage {action.stage}"
        note = f"asks for stages 0 … {last.stage}, but {why}"
        return InvalidSchedule(f"{text}: {why}", draw(program, mark={last: note}))
    place = _place_of_gap(program.lanes[worker], action)
    drawing = draw(program, gaps={worker: (place, action)}, notes={worker: f"{action} is missing"})
    return InvalidSchedule(f"{text} on worker {worker}", drawing)


def _place_of_gap(lane: Lane, missing: Action) -> int:
    """Before the lane's first action on the same values that comes later; else after the last that comes earlier."""
    order = (Kind.FORWARD, Kind.BACKWARD_INPUT, Kind.BACKWARD, Kind.BACKWARD_WEIGHT)
    rank = order.index(missing.kind)
    own = [(place, action) for place, action in enumerate(lane) if action.stage == missing.stage]
    same = [(place, order.index(action.kind)) for place, action in own if action.micro_batch == missing.micro_batch]
    later = [place for place, other in same if other > rank]
    if later:
        return min(later)
    alike = [
        place
        for place, action in own
        if action.micro_batch < missing.micro_batch and (action.kind is Kind.FORWARD) == (missing.kind is Kind.FORWARD)
    ]
    return max([-1, *alike, *(place for place, _ in same)]) + 1


def _broken(program: Program, worker: int, action: Action, why: str) -> InvalidSchedule:
    return InvalidSchedule(f"{program.name}: worker {worker}: {action} {why}", draw(program, mark={action: "here"}))


def _worker_of(program: Program, action: Action) -> int:
    return next(worker for worker, lane in enumerate(program.lanes) if action in lane)


def deadlock(program: Program, stuck: Sequence[Action], ended: Mapping[Action, float]) -> InvalidSchedule:
    """Name the circle: each of the `stuck` actions, first on its lane, waits for one that is behind another."""
    holder = {action: worker for worker, lane in enumerate(program.lanes) for action in lane}
    front = {holder[action]: action for action in stuck}
    waits: dict[Action, Action] = {}
    action = stuck[0]
    while action not in waits:
        sources = (performed_as(needed, holder) for needed in needs(action, program.n_stages))
        waits[action] = next(source for source in sources if source not in ended)
        action = front[holder[waits[action]]]
    order = list(waits)
    circle = order[order.index(action) :]
    waiting = ", ".join(
        f"{at} waits for {waits[at]}" + (f" behind {after}" if waits[at] != after else "")
        for at, after in zip(circle, [*circle[1:], circle[0]], strict=True)
    )
    marks = {at: f"stuck, waits for {waits[at]}" for at in circle}
    return InvalidSchedule(
        f"{program.name}: workers wait for each other in a circle: {waiting}", draw(program, mark=marks)
    )
