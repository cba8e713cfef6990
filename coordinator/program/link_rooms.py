"""The room of links in a dry run: a worker whose array finds no room waits until the receiver makes some.

[Note: room] The arrays that a worker sends stay in the link, in order, until the receiver asks for them (F, I and B ask
for the one that they need). A receiver that waits, for an array or for room of its own, takes out all that is there.
One that computes does not: so it holds up a sender that is far ahead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coordinator.program.table import ActionTable, Numbers, Times, W, kinds_of, stages_of

Link = tuple[int, int]
"""Sender and receiver, both workers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinkRooms:
    """`n_bytes[s, k, j]` is what the action of kind k of stage s and micro-batch j sends to the stage after or before
    it, float64, (stages, 4, micro-batches). `room` are the bytes of each link; one without an entry has any room."""

    n_bytes: Times
    room: Mapping[Link, float]

    def repeated(self, steps: int) -> LinkRooms:
        """Return the same for so many steps in a row (see `table.repeated`)."""
        return LinkRooms(n_bytes=np.tile(self.n_bytes, (1, 1, steps)), room=self.room)

    def sent(self, table: ActionTable, worker: int) -> tuple[Numbers, Times]:
        """Return, for each action of a worker, the receiver of its array (−1: none, or one with any room) and the
        array's bytes."""
        lane, m, n = table.lanes[worker], table.n_micro_batches, table.n_stages
        placement = np.append(table.placement, worker)  # beyond the last stage, and before the first, is nobody
        stage, kind = stages_of(lane, m), kinds_of(lane, m)
        other = np.where(kind == 0, stage + 1, np.where(kind == W, n, stage - 1))
        receiver = np.where((other < 0) | (other >= n), worker, placement[np.clip(other, 0, n)])
        bounded = np.array([self.room.get((worker, int(to))) is not None for to in receiver], dtype=bool)
        return np.where(bounded & (receiver != worker), receiver, -1), self.n_bytes[stage, kind, lane % m]

    def may_be_short(self, table: ActionTable, starts: tuple[Times, ...], ends: tuple[Times, ...]) -> bool:
        """Whether a link would hold more than it has room for if nobody waited for room, with the times of such a dry
        run; receivers that wait are left out of it, so the answer may be yes without need."""
        m, changes = table.n_micro_batches, dict[Link, list[tuple[Times, Times]]]()
        begins = np.full((table.n_stages, 4, m), np.inf)
        for lane, start in zip(table.lanes, starts, strict=True):
            begins.reshape(-1)[lane] = start
        for worker, lane in enumerate(table.lanes):
            receiver, n_bytes = self.sent(table, worker)
            for to in set(receiver[receiver >= 0].tolist()):
                own = receiver == to
                stage, kind, j = stages_of(lane[own], m), kinds_of(lane[own], m), lane[own] % m
                taken = np.where(kind == 0, begins[np.clip(stage + 1, 0, table.n_stages - 1), 0, j], np.inf)
                back = np.minimum(begins[stage - 1, 1, j], begins[stage - 1, 3, j])
                taken = np.where(kind == 0, taken, back)
                times = np.concatenate([ends[worker][own], taken])
                changes.setdefault((worker, to), []).append((times, np.concatenate([n_bytes[own], -n_bytes[own]])))
        for link, several in changes.items():
            times, amounts = (np.concatenate(column) for column in zip(*several, strict=True))
            order = np.lexsort((amounts, times))  # what is taken at a moment makes room for what is sent then
            if np.cumsum(amounts[order]).max() > self.room[link]:
                return True
        return False
