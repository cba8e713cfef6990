"""The losses, by the names that job files use. A new loss is a file here and a row of the table."""

from __future__ import annotations

from typing import Any

from stages.losses.base import Loss, LossKind, LossResult, LossSpec, Targets, mean
from stages.losses.binary_cross_entropy import BINARY_CROSS_ENTROPY
from stages.losses.cross_entropy import CROSS_ENTROPY
from stages.losses.differences import HUBER, L1_LOSS, MEAN_SQUARE, SUM_OF_SQUARES

__all__ = ["LOSSES", "Loss", "LossKind", "LossResult", "LossSpec", "Targets", "build_loss", "loss_entry", "mean"]

LOSSES: dict[str, LossKind] = {
    kind.name: kind for kind in (CROSS_ENTROPY, BINARY_CROSS_ENTROPY, MEAN_SQUARE, SUM_OF_SQUARES, L1_LOSS, HUBER)
}


def loss_entry(kind: str, **options: Any) -> LossSpec:
    """Return a loss's entry: `loss_entry("huber", delta=0.5)`. Raises KeyError for an unknown kind, TypeError for an
    unknown option."""
    return LossSpec(kind, LOSSES[kind].options(**options))


def build_loss(spec: LossSpec | str) -> Loss:
    """Return the loss of a spec, or of a name without options."""
    spec = loss_entry(spec) if isinstance(spec, str) else spec
    return LOSSES[spec.kind].build(spec.options)
