"""Steps of a stage: which operation reads and writes which arrays, first by name, then by reusable slot.

See stages.compiled, [Note: compiled stages].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from stages.network import Op


class Do(Enum):
    """What a step does: one of an operation's three passes, a sum of two gradients, or handling a message."""

    FORWARD = "F"
    INPUT_GRADIENT = "I"
    WEIGHT_GRADIENT = "W"
    SUM = "sum"
    UNPACK = "unpack"
    """Copy a message into slots."""
    PACK = "pack"
    """Gather the values to be sent into one array."""


class Buffer(NamedTuple):
    """The size of a slot's array: (features, columns · rows)."""

    features: int
    columns: int

    @property
    def numbers(self) -> int:
        """How many numbers the array has for each row."""
        return self.features * self.columns


class Step(NamedTuple):
    """A step takes slots, computes with slots, then gives slots back. The slot −1 means none.

    FORWARD: x, others → y, extras. INPUT_GRADIENT: x, y, extras, dy → dx. WEIGHT_GRADIENT: x, extras, dy.
    SUM: x + y → dx. UNPACK: → `others`. PACK: `others` → y, which is that slot itself if there is only one.
    """

    do: Do
    op: Op | None
    takes: tuple[tuple[int, Buffer], ...]
    gives: tuple[int, ...]
    x: int = -1
    y: int = -1
    extras: tuple[int, ...] = ()
    dy: int = -1
    dx: int = -1
    others: tuple[int, ...] = ()

    def __str__(self) -> str:
        """`I 2.1 (gelu): 3 4 → 4, gives 3`."""
        reads = [n for n in (self.x, self.dy, *self.others) if n >= 0]
        writes = [n for n in (self.y if self.do is not Do.INPUT_GRADIENT else -1, self.dx) if n >= 0]
        what = f"{self.do.value} {self.op}" if self.op is not None else self.do.value
        gives = f", gives {' '.join(map(str, self.gives))}" if self.gives else ""
        return f"{what}: {' '.join(map(str, reads))} → {' '.join(map(str, writes))}{gives}"


@dataclass(slots=True)
class Event:
    """A step over names instead of slots. `shares` lists pairs of names: the first may be written over the second."""

    do: Do
    op: Op | None
    x: int = -1
    y: int = -1
    extras: tuple[int, ...] = ()
    dy: int = -1
    dx: int = -1
    others: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    shares: tuple[tuple[int, int], ...] = ()
    reads: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        all_names = (self.x, self.y, *self.extras, self.dy, self.dx, *self.others)
        self.reads = tuple(n for n in all_names if n >= 0 and n not in self.writes)


@dataclass(frozen=True, slots=True)
class Slots:
    """Lists of steps over slots. `held[i]` are the slots that are still taken after list i."""

    buffers: tuple[Buffer, ...]
    lists: list[tuple[Step, ...]]
    held: list[frozenset[int]]


def allocate(buffers: Sequence[Buffer], lists: Sequence[Sequence[Event]]) -> Slots:
    """Assign slots to names, in the order of the lists; see [Note: compiled stages]."""
    every = [event for events in lists for event in events]
    last = {n: i for i, event in enumerate(every) for n in (*event.reads, *event.writes)}
    slot: dict[int, int] = {-1: -1}
    slots, held, steps, position = list[Buffer](), set[int](), list[list[Step]](), 0
    states = []
    for events in lists:
        steps.append([])
        of_earlier, free = len(slots), dict[Buffer, list[int]]()  # a slot of F, I and W holds one array only
        for event in events:
            takes, over = [], dict[int, int]()
            for written, read in event.shares:
                if written not in over and last[read] == position and buffers[read] == buffers[written]:
                    over[written] = read
            for n in event.writes:
                if n in over:
                    slot[n] = slot[over[n]]
                    continue
                buffer = buffers[n]
                if waiting := free.get(buffer):
                    slot[n] = waiting.pop()
                else:
                    slot[n] = len(slots)
                    slots.append(buffer)
                takes.append((slot[n], buffer))
                held.add(slot[n])
            ended = {slot[n] for n in (*event.reads, *event.writes) if last[n] == position} & held
            living = {slot[n] for n in event.writes if last[n] > position}
            gives = tuple(sorted(ended - living))
            for s in gives:
                held.discard(s)
                if s >= of_earlier:
                    free.setdefault(slots[s], []).append(s)
            steps[-1].append(_step(event, slot, tuple(takes), gives))
            position += 1
        states.append(frozenset(held))
    assert not held, f"slots {sorted(held)} are never given back"
    return Slots(tuple(slots), [tuple(part) for part in steps], states)


def _step(event: Event, slot: dict[int, int], takes: tuple[tuple[int, Buffer], ...], gives: tuple[int, ...]) -> Step:
    return Step(
        do=event.do,
        op=event.op,
        takes=takes,
        gives=gives,
        x=slot[event.x],
        y=slot[event.y],
        extras=tuple(slot[n] for n in event.extras),
        dy=slot[event.dy],
        dx=slot[event.dx],
        others=tuple(slot[n] for n in event.others),
    )
