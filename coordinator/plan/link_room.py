"""How many bytes of shared memory a link between two workers of one host has."""

from __future__ import annotations

from coordinator.plan.resolved_job import Blueprint
from stages.trained import stage_of

_PAGE = 4096
_ALIGNMENT = 64
_TWO_STEPS_UP_TO = 2**20
_TIED_MOST = 2**20

Link = tuple[int, int]
"""Sender and receiver, both workers."""


def link_room(blueprint: Blueprint) -> dict[Link, int]:
    """Return the bytes of each link that the job uses.

    Two of the largest arrays of a step have room; small ones of two whole steps, within 1 MiB. So a sender of small
    arrays is not held up by a receiver that is late because other programs use its core. Larger arrays (chunks of an
    evaluation, tied weights) are sent in pieces.
    """
    model, bounds, placement = blueprint.spec.model_spec(), blueprint.bounds, blueprint.program.placement
    network, item = model.network, model.itemsize
    rows = max(max(sizes) for sizes in blueprint.rows_by_count.values())
    largest: dict[Link, int] = {}

    def carries(link: Link, n_bytes: int) -> None:
        if link[0] != link[1]:
            largest[link] = max(largest.get(link, 0), n_bytes)

    for s in range(len(placement) - 1):
        below, above, cut = placement[s], placement[s + 1], bounds[s + 1]
        carries((below, above), network.crossing_numbers(cut) * rows * item)
        # above an untrained stage no gradient comes back, only the answers to chunks of an evaluation
        carries((above, below), max(network.gradient_numbers(cut) * rows, 1) * item)
    count = 2 * max(blueprint.programs)
    room = {link: _step_room(n_bytes, count) for link, n_bytes in largest.items()}
    for tie in network.ties:
        user, owner = (placement[stage_of(op.index, bounds)] for op in (tie.user, tie.owner))
        for link in ((user, owner), (owner, user)):
            if user != owner:
                room.setdefault(link, _pages(_TIED_MOST))
    return room


def _step_room(n_bytes: int, count: int) -> int:
    padded = -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
    return _pages(max(2 * padded, min(count * padded, _TWO_STEPS_UP_TO)))


def _pages(n_bytes: int) -> int:
    return -(-n_bytes // _PAGE) * _PAGE
