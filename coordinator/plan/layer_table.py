"""The layers of a job, one row for each operation: what `plan` shows of a nested or long model.

[Note: folding] Equal entries of a `repeat` or `transformer` differ only in one number of their path. `folded` keeps the
rows of the first of several equal neighbours and counts all of them in `times`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from coordinator.plan.blueprint import Blueprint
from coordinator.plan.partition import layer_flops
from stages.compiled import Compiled, compile_stage


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """One operation. `output` is the shape of its output for one sample; `parameters` are its own numbers, without tied
    ones; `flops` are the operations of its matrix products in a step; `kept_bytes` are the bytes that it keeps of a
    micro-batch until backward. The row stands for `times` operations with these numbers each."""

    number: int
    path: tuple[int, ...]
    kind: str
    stage: int
    output: str
    parameters: int
    flops: float
    kept_bytes: int
    times: int = 1


def layer_rows(blueprint: Blueprint) -> tuple[LayerRow, ...]:
    """Return a row for each operation of the job's network, in order."""
    model, bounds = blueprint.spec.model_spec(), blueprint.bounds
    network, flops, rows = model.network, layer_flops(model), blueprint.micro_batch_rows
    found = []
    for s in range(len(bounds) - 1):
        compiled = compile_stage(network, bounds[s], bounds[s + 1], recompute=s in blueprint.recompute)
        kept = _kept_numbers(compiled)
        for op in network.ops[bounds[s] : bounds[s + 1]]:
            own = sum(p.numbers for p in op.layer.parameters if p.tied_to is None)
            row = LayerRow(
                number=op.index,
                path=op.path,
                kind=op.kind,
                stage=s,
                output=str(op.layer.shape_out),
                parameters=own,
                flops=flops[op.index] * sum(rows),
                kept_bytes=kept.get(op.index, 0) * max(rows) * model.itemsize,
            )
            found.append(row)
    return tuple(found)


def _kept_numbers(compiled: Compiled) -> dict[int, int]:
    """Return the numbers for each row in the slots that forward keeps, by the operation that took the slot."""
    taken_by: dict[int, int] = {}
    for step in compiled.forward:
        for slot, _ in step.takes:
            taken_by[slot] = -1 if step.op is None else step.op.index
    found: dict[int, int] = {}
    for slot in compiled.kept:
        found[taken_by[slot]] = found.get(taken_by[slot], 0) + compiled.buffers[slot].numbers
    return found


def folded(rows: Sequence[LayerRow], depth: int = 0) -> tuple[LayerRow, ...]:
    """Return the rows with equal neighbours folded; see [Note: folding]. `kept_bytes` is the largest of the folded
    rows."""
    entries = [list(group) for _, group in groupby(rows, key=lambda row: row.path[: depth + 1])]
    found: list[LayerRow] = []
    for _, alike in groupby(entries, key=lambda entry: _signature(entry, depth + 1)):
        same = list(alike)
        first = [
            replace(row, times=row.times * len(same), kept_bytes=max(entry[i].kept_bytes for entry in same))
            for i, row in enumerate(same[0])
        ]
        found += folded(first, depth + 1) if len(first) > 1 else first
    return tuple(found)


def _signature(entry: Sequence[LayerRow], depth: int) -> tuple[object, ...]:
    return tuple((row.path[depth:], row.kind, row.output, row.parameters, row.flops) for row in entry)
