"""Optimizers, each with its state in flat vectors."""

from __future__ import annotations

from collections.abc import Iterable

from stages.network import Op
from stages.optimizers.adam import Adam
from stages.optimizers.base import Optimizer, Part
from stages.optimizers.lion import Lion
from stages.optimizers.sgd import Sgd
from stages.parameters import Parameters
from stages.spec import AdamSpec, LionSpec, OptimizerSpec, SgdSpec

__all__ = ["Adam", "Lion", "Optimizer", "Sgd", "make_optimizer"]


def make_optimizer(spec: OptimizerSpec, parameters: Parameters, ops: Iterable[Op]) -> Optimizer:
    """Return the optimizer of a stage's trained parameters."""
    matrices = {name for op in ops for name, p in op.parameters if len(p.shape) > 1}
    parts: list[Part] = []
    for slot in parameters.trained:
        decays = spec.decays_vectors or slot.name in matrices
        if parts and parts[-1].decays == decays:
            parts[-1] = parts[-1]._replace(stop=slot.stop)
        else:
            parts.append(Part(slot.start, slot.stop, decays))
    n = parameters.n_trained
    values, gradients = parameters.values[:n], parameters.gradients[:n]
    if isinstance(spec, SgdSpec):
        return Sgd(spec, values, gradients, parts)
    if isinstance(spec, AdamSpec):
        return Adam(spec, values, gradients, parts)
    assert isinstance(spec, LionSpec), f"{type(spec).__name__} is no optimizer"
    return Lion(spec, values, gradients, parts)
