"""The layouts of one run: on which plan it runs, on which it goes on after a node has left, and when it grows.

See [Note: what a layout may change] in coordinator/plan/layout.py. A new layout ends all workers' processes and starts
others, which load the newest checkpoint: any checkpoint fits any layout.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from cluster.actors.ray_workers import RayWorkers
from cluster.checkpoints.folder import StatePlaces
from cluster.data.sources import JobData
from coordinator.job.spec import JobSpec
from coordinator.plan.blueprint import Blueprint
from coordinator.plan.layout import best, layouts, may_change
from coordinator.train.growth import grows
from coordinator.train.workers import Workers
from stages.errors import JobFailed, NotEnoughResources

_TRIES = 3
_WITHIN_S = 30.0  # for room that was just seen
_LOOK_EVERY_S = 2.0


class Layouts:
    """The layouts of one run. `most` is the most workers it may have, None for no limit. `waits`: whether it waits for
    room as long as nobody stops it, which `give_up` says. `on_change` is called with each new plan, `record` with it
    and the details of its event."""

    def __init__(
        self,
        spec: JobSpec,
        data: JobData,
        blueprint: Blueprint,
        workers: Workers,
        *,
        most: int | None,
        waits: bool,
        give_up: Callable[[], bool],
        on_change: Callable[[Blueprint], None],
        record: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._spec, self._data, self._blueprint, self._workers = spec, data, blueprint, workers
        self._waits, self._give_up, self._on_change, self._record = waits, give_up, on_change, record
        self._clock, self._sleep, self._begun = clock, sleep, [clock()]
        self._next_look = self._room_since = clock()
        self._room, self._possible = 0, blueprint.n_workers
        widest = layouts(spec.pipeline, len(spec.model_spec().network.ops), 2**31)[0].workers
        self._most = min(widest, widest if most is None else max(most, blueprint.n_workers))
        self._changes = isinstance(workers, RayWorkers) and may_change(spec.pipeline)

    def shrink(self, why: str, states: StatePlaces) -> bool:
        """Lay the run out on the room that the cluster has, with the state that `states` names. Return False if the job
        has no layout for that room. Raises JobFailed if the workers do not start."""
        for _ in range(_TRIES if self._changes else 0):
            found = self._best()
            if found is None:
                return False
            with contextlib.suppress(NotEnoughResources):  # somebody else has taken the room meanwhile
                self._lay_out(found, why, states)
                return True
        return False

    def has_room_elsewhere(self) -> bool:
        """Whether a worker is on a node that is cut off, and there is room for all workers without this node."""
        assert isinstance(self._workers, RayWorkers), "threads are on no node"
        nodes = {place.node for place in self._workers.places()}
        return bool(self._workers.cut_off.now() & nodes) and self._room_now() >= self._blueprint.n_workers

    def move(self, why: str, states: StatePlaces, since: Sequence[float] | None) -> bool:
        """Start all workers anew on nodes that are not cut off, with the state that `states` names and the ends of
        their accounts (see `RayWorkers.replace`). Return False if they were laid out anew, because somebody else has
        taken the room. Raises JobFailed."""
        while True:
            try:
                self._start(self._blueprint, states, since)
                return True
            except NotEnoughResources as lack:
                if self.shrink(why, states):
                    return False
                if not self.waits:
                    raise JobFailed(f"{lack}, after {why}") from None
                self._sleep(_LOOK_EVERY_S)  # that the whole cluster is too small is told without any wait

    @property
    def waits(self) -> bool:
        """Whether the run waits for room on which it cannot do without."""
        return self._waits and not self._give_up()

    def wants_to_grow(self) -> bool:
        """Whether the run should be laid out on more workers now. It looks at the cluster every few seconds."""
        now, workers = self._clock(), self._blueprint.n_workers
        if not self._changes or workers >= self._most or now < self._next_look:
            return False
        self._next_look = now + _LOOK_EVERY_S
        room = self._room_now()
        if room != self._room:
            self._room, self._room_since = room, now
            found = self._best() if room > workers else None
            self._possible = workers if found is None else found.n_workers
        return grows(
            now,
            workers=workers,
            possible=self._possible,
            possible_since=self._room_since,
            layouts=self._begun,
            after_s=self._spec.recovery.grow_after,
        )

    def postpone(self) -> None:
        """Take note that the run did not grow when it could."""
        self._begun.append(self._clock())

    def grow(self, states: StatePlaces) -> None:
        """Lay the run out on the room that the cluster has. Raises JobFailed if it has none any more."""
        if not self.shrink("there is room for more", states):
            raise JobFailed("the cluster has lost the room of the job's workers while they were being laid out anew")

    def _best(self) -> Blueprint | None:
        data, room = self._data, self._room_now()
        nbytes, rows = data.nbytes + data.reading_bytes, len(data.validation)
        return best(self._spec, len(data.train), room, data_bytes=nbytes, validation_rows=rows)

    def _room_now(self) -> int:
        assert isinstance(self._workers, RayWorkers), "threads have no other room"
        with contextlib.suppress(Exception):  # Ray does not answer: no room is known
            return min(self._most, self._workers.room())
        return 0

    def _lay_out(self, blueprint: Blueprint, why: str, states: StatePlaces) -> None:
        assert isinstance(self._workers, RayWorkers), "threads have one layout"
        before, began = _numbers(self._blueprint), self._clock()
        self._start(blueprint, states)
        self._blueprint = blueprint
        self._begun.append(self._clock())
        self._room = 0  # look again
        self._on_change(blueprint)
        self._record(
            blueprint,
            before=before,
            **_numbers(blueprint),
            bounds=list(blueprint.bounds),
            placement=list(blueprint.program.placement),
            why=why,
            seconds=self._clock() - began,
            places=[place._asdict() for place in self._workers.places()],
        )

    def _start(self, blueprint: Blueprint, states: StatePlaces, since: Sequence[float] | None = None) -> None:
        assert isinstance(self._workers, RayWorkers), "threads have one layout"
        for last in (False, False, True):
            try:
                self._workers.lay_out(blueprint, states, _WITHIN_S, since)
                return
            except JobFailed as error:
                if last:
                    error.place = None  # there is no worker to be replaced
                    raise


def _numbers(blueprint: Blueprint) -> dict[str, Any]:
    return {"workers": blueprint.n_workers, "stages": len(blueprint.bounds) - 1}
