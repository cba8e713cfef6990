"""Decides which active jobs make room for a waiting job that may displace jobs of a lower priority.

[Note: no ping-pong] Only the first job of the queue displaces others, because all room that becomes free is kept for
it: [Note: backfill] lets nobody in who could delay it. It displaces only jobs of a lower priority, which then wait
behind it, and none of them can displace it. So a job is displaced at most once for each job that is let in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coordinator.queue.job_queue import Capacity, Needs, Waiting, first_in_turn, fits


@dataclass(frozen=True, slots=True, kw_only=True)
class Active:
    """A job that holds resources. `leaving`: it was asked to end, so its room becomes free soon."""

    job: str
    priority: int
    order: int
    needs: Needs
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Displacement:
    """`jobs` make room for `room_for`."""

    room_for: str
    jobs: tuple[str, ...]


def displacement(queue: Iterable[Waiting], active: Sequence[Active], nodes: Sequence[Capacity]) -> Displacement | None:
    """Return which jobs make room for the first one of the queue; None if it displaces nobody, or needs not.

    `queue` is in the order of turns, without the jobs that start now. Jobs of the lowest priority go first, and of
    these the latest submitted; a job without which there is room enough stays.
    """
    head = first_in_turn(queue, nodes)
    if head is None or head.displaces_below is None:
        return None
    staying = [one for one in active if not one.leaving]
    lower = [one for one in staying if one.priority < head.displaces_below]
    going = list[Active]()
    for one in sorted(lower, key=lambda one: (one.priority, -one.order)):
        if _fits_without(head, staying, going, nodes):
            break
        going.append(one)
    if not going or not _fits_without(head, staying, going, nodes):
        return None
    for one in reversed(going.copy()):  # the most worthy of staying first
        others = [other for other in going if other is not one]
        if _fits_without(head, staying, others, nodes):
            going = others
    return Displacement(head.job, tuple(one.job for one in going))


def _fits_without(head: Waiting, staying: Sequence[Active], going: Sequence[Active], nodes: Sequence[Capacity]) -> bool:
    return fits(head.needs, [one.needs for one in staying if one not in going], nodes)
