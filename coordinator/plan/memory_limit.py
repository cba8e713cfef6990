"""Which layers a stage may hold under `resources.memory_per_worker`: for many cuts, without a walk for each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from coordinator.plan.memory import Footprint, Occupancy, stage_memory
from stages.actions import Kind, Program
from stages.spec import ModelSpec, SgdSpec


class MemoryLimit:
    """Whether stages of `program` fit into `limit` bytes a worker, which a worker's stages share evenly.

    Layers of a stage that fit still fit if the first or the last of them is taken away, but for the model's own first.
    """

    def __init__(
        self, model: ModelSpec, sgd: SgdSpec, program: Program, sizes: Sequence[int], group: int, limit: int
    ) -> None:
        self._model, self._sgd, self._program = model, sgd, program
        self._trains_from = model.network.first_trained
        self._sizes, self._group, self._limit = sizes, group, limit
        self._footprint = cache(self._footprint_of)
        self._occupancy = cache(self._occupancy_of)

    def __call__(self, stage: int, first: int, last: int) -> bool:
        """Whether `stage` may hold layers `first` … `last` − 1."""
        placement = self._program.placement
        trained = last > self._trains_from
        needed = stage_memory(self._footprint(first, last), self._occupancy(stage, trained), self._sgd).total
        return needed <= self._limit // placement.count(placement[stage])

    def _footprint_of(self, first: int, last: int) -> Footprint:
        return Footprint.of(self._model, first, last)

    def _occupancy_of(self, stage: int, trained: bool) -> Occupancy:
        lane = self._program.lanes[self._program.placement[stage]]
        if not trained:  # see stages.trained, [Note: untrained stages]
            lane = tuple(action for action in lane if action.kind is Kind.FORWARD)
        return Occupancy.of(lane, stage, self._sizes, self._group)
