"""What workers keep for the backward pass, action by action: the counters of a trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from coordinator.plan.blueprint import Blueprint
from coordinator.program.weight_groups import WeightGroups
from stages.actions import Action, Kind
from stages.compiled import compile_stage
from stages.data import batch_bounds, micro_batch_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceMemory:
    """What stages keep of each row of a micro-batch, in `unit`. Stage s keeps `for_input[s]` from F to I; of this,
    `for_weight[s]` stays until the product of the micro-batch's weight-gradient group, which has `group` micro-batches.
    `rows(step)` returns the rows of each micro-batch of a step; the first step is 1."""

    for_input: Sequence[int]
    for_weight: Sequence[int]
    rows: Callable[[int], Sequence[int]]
    group: int = 1
    unit: str = "bytes"


def trace_memory(blueprint: Blueprint, train_rows: int) -> TraceMemory:
    """Return the bytes of kept activations, from the lists of steps that stages run."""
    training, model, bounds = blueprint.spec.training, blueprint.spec.model_spec(), blueprint.bounds
    batches = batch_bounds(train_rows, training.batch_size)
    again = blueprint.recompute
    compiled = [compile_stage(model.network, *part, recompute=s in again) for s, part in enumerate(pairwise(bounds))]

    @lru_cache(maxsize=4)
    def rows(step: int) -> Sequence[int]:
        first, last = batches[(step - 1) % len(batches)]
        return micro_batch_sizes(last - first, training.micro_batches)

    return TraceMemory(
        for_input=[model.itemsize * stage.numbers(stage.kept) for stage in compiled],
        for_weight=[model.itemsize * stage.numbers(stage.kept_for_weight) for stage in compiled],
        rows=rows,
        group=blueprint.spec.pipeline.weight_grad_group,
    )


class KeptBytes:
    """The bytes that one worker keeps, action by action, as stages.stage.Stage keeps them."""

    def __init__(self, memory: TraceMemory) -> None:
        self._memory = memory
        self._kept = 0
        self._groups: dict[tuple[int, int], WeightGroups] = {}

    def after(self, step: int, action: Action) -> int | None:
        """Return what the worker keeps after `action` of `step`; None if it keeps as much as before."""
        memory, before, stage = self._memory, self._kept, action.stage
        rows = memory.rows(step)
        if action.kind is Kind.FORWARD:
            self._kept += memory.for_input[stage] * rows[action.micro_batch]
        if action.kind in (Kind.BACKWARD, Kind.BACKWARD_INPUT):
            self._kept -= (memory.for_input[stage] - memory.for_weight[stage]) * rows[action.micro_batch]
        if action.kind in (Kind.BACKWARD, Kind.BACKWARD_WEIGHT):
            self._kept -= memory.for_weight[stage] * sum(self._released(step, action, rows))
        return None if self._kept == before else self._kept

    def _released(self, step: int, action: Action, rows: Sequence[int]) -> Sequence[int]:
        """Return the rows of the micro-batches whose products are computed now."""
        key = step, action.stage
        groups = self._groups.setdefault(key, WeightGroups(len(rows), self._memory.group))
        made = groups.mark(action.micro_batch)
        if groups.complete:
            del self._groups[key]
        return rows[made.start : made.stop]
