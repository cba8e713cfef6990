"""The laws of programs that need no clock: the required order of actions, and the results that each action needs.

Every stage does F and then either B, or I and later W, once for each micro-batch; one worker holds a stage; and in a
lane no action comes before one whose result it uses. `replay` checks that lanes never wait for each other in a circle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stages.actions import Action, Kind, Lane, Program


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken law: `text` says what is wrong; the other fields say where, as arguments of `drawing.draw`."""

    text: str
    mark: Mapping[Action, str] = field(default_factory=dict)
    notes: Mapping[int, str] = field(default_factory=dict)
    gaps: Mapping[int, tuple[int, Action]] = field(default_factory=dict)


def needs(action: Action, n_stages: int) -> tuple[Action, ...]:
    """Return the actions whose results `action` needs. A needed I may be done as the first half of a B."""
    s, j = action.stage, action.micro_batch
    if action.kind is Kind.FORWARD:
        return (Action(s - 1, Kind.FORWARD, j),) if s else ()
    if action.kind is Kind.BACKWARD_WEIGHT:
        return (Action(s, Kind.BACKWARD_INPUT, j),)
    own = Action(s, Kind.FORWARD, j)
    return (own, Action(s + 1, Kind.BACKWARD_INPUT, j)) if s + 1 < n_stages else (own,)


def performed_as(needed: Action, there: Mapping[Action, object]) -> Action:
    """Return the action that does `needed`: itself, or the B of which it is the first half."""
    if needed.kind is Kind.BACKWARD_INPUT and needed not in there:
        return Action(needed.stage, Kind.BACKWARD, needed.micro_batch)
    return needed


def broken_law(program: Program, *, backward: bool = True) -> Violation | None:
    """Return the first law that the program breaks; None if it breaks none.

    With `backward=False` the program is an evaluation: every F, and nothing else.
    """
    return _wrong_placement(program) or _not_once(program, backward) or _wrong_order(program)


def _wrong_placement(program: Program) -> Violation | None:
    size = f"{program.n_stages} stages × {program.n_micro_batches} micro-batches"
    if min(program.n_stages, program.n_micro_batches, program.n_workers) < 1:
        return Violation(f"has {size} on {program.n_workers} workers, each must be at least 1")
    holder: dict[int, int] = {}
    for worker, lane in enumerate(program.lanes):
        if not lane:
            text = f"worker {worker} has no action, so it holds no stage"
            return Violation(text, notes={worker: "has nothing to do"})
        for action in lane:
            if not (0 <= action.stage < program.n_stages and 0 <= action.micro_batch < program.n_micro_batches):
                return _misplaced(worker, action, f"is outside {size}")
            other = holder.setdefault(action.stage, worker)
            if other != worker:
                return _misplaced(
                    worker, action, f"puts stage {action.stage} on a second worker, besides worker {other}"
                )
    return None


def _not_once(program: Program, backward: bool) -> Violation | None:
    counts: Counter[Action] = Counter()
    for worker, lane in enumerate(program.lanes):
        for action in lane:
            counts[action] += 1
            if counts[action] > 1:
                return _misplaced(worker, action, "appears a second time")
            if not backward and action.kind is not Kind.FORWARD:
                return _misplaced(worker, action, "is a backward action, but an evaluation has none")
    for stage in range(program.n_stages):
        for j in range(program.n_micro_batches):
            f, i, w, b = (bool(counts[Action(stage, kind, j)]) for kind in Kind)
            if not f:
                return _missing(program, Action(stage, Kind.FORWARD, j))
            if b and (i or w):
                extra = Action(stage, Kind.BACKWARD_INPUT if i else Kind.BACKWARD_WEIGHT, j)
                why = f"stands beside {Action(stage, Kind.BACKWARD, j)}, which is I and W in one"
                return _misplaced(_worker_of(program, extra), extra, why)
            if backward and not b and not (i and w):
                kind = Kind.BACKWARD_WEIGHT if i else Kind.BACKWARD_INPUT if w else Kind.BACKWARD
                return _missing(program, Action(stage, kind, j))
    return None


def _wrong_order(program: Program) -> Violation | None:
    for worker, lane in enumerate(program.lanes):
        place = {action: position for position, action in enumerate(lane)}
        for action in lane:
            for needed in needs(action, program.n_stages):
                source = performed_as(needed, place)
                if place.get(source, -1) > place[action]:
                    return _misplaced(worker, action, f"stands before {source}, whose result it uses")
    return None


def _missing(program: Program, action: Action) -> Violation:
    """Return the violation with a gap at the place of the action. If no worker holds its stage, the action of the
    highest stage is marked instead."""
    text = f"{action} is missing"
    worker = next((w for w, lane in enumerate(program.lanes) if any(a.stage == action.stage for a in lane)), None)
    if worker is None:
        last = max(a for lane in program.lanes for a in lane)
        why = f"no worker holds stage {action.stage}"
        return Violation(f"{text}: {why}", mark={last: f"needs stages 0 … {last.stage}, but {why}"})
    place = _place_of_gap(program.lanes[worker], action)
    return Violation(f"{text} on worker {worker}", notes={worker: text}, gaps={worker: (place, action)})


def _place_of_gap(lane: Lane, missing: Action) -> int:
    """Return the place before the first action of the same stage and micro-batch that must come later; if there is
    none, the place after the last action that must come earlier."""
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


def _misplaced(worker: int, action: Action, why: str) -> Violation:
    return Violation(f"worker {worker}: {action} {why}", mark={action: "here"})


def _worker_of(program: Program, action: Action) -> int:
    return next(worker for worker, lane in enumerate(program.lanes) if action in lane)


def deadlock(program: Program, stuck: Sequence[Action], ended: Mapping[Action, float]) -> Violation:
    """Return the circle in which the `stuck` actions, the first of their lanes that cannot run, wait for each other."""
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
    return Violation(f"workers wait for each other in a circle: {waiting}", mark=marks)
