"""Decides which layers a stage may hold under `resources.memory_per_worker`: for many cuts, without a walk along the
lane for each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from coordinator.job.spec import JobSpec
from coordinator.plan.memory import Footprint, Occupancy, stage_memory
from coordinator.plan.partition import Bounds
from stages.actions import Kind, Program
from stages.spec import ModelSpec, OptimizerSpec


class MemoryLimit:
    """Decides whether a stage of `program` fits into its share of `limit`, the bytes of a worker. All stages of one
    worker have the same share.

    The answer is monotone, as `balanced_bounds` needs it: layers that fit also fit without the last of them and, unless
    that is the model's first layer, without the first of them.
    """

    def __init__(
        self, model: ModelSpec, optimizer: OptimizerSpec, program: Program, sizes: Sequence[int], group: int, limit: int
    ) -> None:
        self._model, self._optimizer, self._program = model, optimizer, program
        self._trains_from = model.network.first_trained
        self._sizes, self._group, self._limit = sizes, group, limit
        self._kinds = _kinds(model)
        self._footprints: dict[object, Footprint] = {}
        self._occupancy = cache(self._occupancy_of)

    def __call__(self, stage: int, first: int, stop: int) -> bool:
        """Whether `stage` may hold layers `first` … `stop` − 1."""
        placement = self._program.placement
        trained = stop > self._trains_from
        needed = stage_memory(self._footprint(first, stop), self._occupancy(stage, trained), self._optimizer).total
        return needed <= self._limit // placement.count(placement[stage])

    def _footprint(self, first: int, stop: int) -> Footprint:
        """Return the footprint of these layers. Deep networks repeat themselves: equal parts are computed only once."""
        network = self._model.network
        around = tuple(tuple(v - cut for v in network.crossing(cut)) for cut in (first, stop))
        shapes = tuple(network.shapes[v] for v in network.crossing(first))
        back = tuple(tuple(v - cut for v in network.gradients(cut)) for cut in (first, stop))
        owned = tuple(tie.owner.index >= first for tie in network.ties if first <= tie.user.index < stop)
        key = self._kinds[first:stop], around, shapes, back, owned
        found = self._footprints.get(key)
        if found is None:
            found = self._footprints[key] = Footprint.of(self._model, first, stop)
        return found

    def _occupancy_of(self, stage: int, trained: bool) -> Occupancy:
        lane = self._program.lanes[self._program.placement[stage]]
        if not trained:  # see stages.trained, [Note: untrained stages]
            lane = tuple(action for action in lane if action.kind is Kind.FORWARD)
        return Occupancy.of(lane, stage, self._sizes, self._group)


def recomputed_stages(spec: JobSpec, bounds: Bounds, program: Program, sizes: Sequence[int]) -> frozenset[int]:
    """Return the stages that run forward again; with `recompute: auto`, those that do not fit into their worker's
    memory otherwise."""
    wanted, limit = spec.pipeline.recompute, spec.resources.memory_per_worker
    if wanted == "full":
        return frozenset(range(program.n_stages))
    if isinstance(wanted, tuple):
        return frozenset(wanted)
    if wanted == "none" or limit is None:
        return frozenset()
    fits = MemoryLimit(spec.model_spec(), spec.optimizer(), program, sizes, spec.pipeline.weight_grad_group, limit)
    return frozenset(s for s in range(program.n_stages) if not fits(s, bounds[s], bounds[s + 1]))


def _kinds(model: ModelSpec) -> tuple[int, ...]:
    """Return a number for each operation; operations with the same number take the same memory."""
    numbers, frozen = dict[object, int](), model.network.frozen
    found = []
    for op in model.network.ops:
        layer = op.layer
        parameters = tuple((p.shape, p.tied_to is not None and op.index, name in frozen) for name, p in op.parameters)
        key = type(layer), layer.shape_in, layer.shape_out, layer.extras, parameters, layer.is_identity, op.trained
        inputs = tuple(v - op.index for v in op.inputs)
        found.append(numbers.setdefault((key, inputs), len(numbers)))
    return tuple(found)
