"""Compares a pipeline's training with the one-process reference, parameter by parameter."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from coordinator.plan.blueprint import Blueprint
from coordinator.train.reference import Trained
from coordinator.train.rows import StepRow
from coordinator.train.trainer import Trainer, clip_scale, gradient_norm
from coordinator.train.workers import Workers, gather
from stages.data import Dataset, batch_bounds
from stages.losses import mean
from stages.orders import StepReport, TrainStep, Update


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Largest absolute differences from the reference; `equal` means bitwise, in every parameter, gradient and loss."""

    parameters: float
    gradients: float
    losses: float
    equal: bool
    worst: str | None = None


def train_pipeline(blueprint: Blueprint, workers: Workers, train: Dataset, steps: int) -> Trained:
    """Train `steps` steps on the workers. The trainer makes all but the last, as in `train`; the last is made here, to
    keep its gradients."""
    rows = list(Trainer(blueprint, workers, train_rows=len(train), max_steps=steps - 1).rows()) if steps > 1 else []
    losses = [row.loss for row in rows if isinstance(row, StepRow)]
    spec = blueprint.spec
    batches = batch_bounds(len(train), spec.training.batch_size)
    epoch_index, place = divmod(steps - 1, len(batches))
    first, last = batches[place]
    order = TrainStep(step=steps, epoch_index=epoch_index, first=first, last=last)
    reports = [r for (r,) in workers.submit([order]).collect() if isinstance(r, StepReport)]
    gradients = gather(workers, "gradients")
    clip = spec.training.clip_norm
    scale = 1.0 if clip is None else clip_scale(gradient_norm(reports), clip)
    workers.submit([Update(steps, spec.training.rates(len(batches))(steps), scale)]).collect()
    losses += [mean(r.loss_total, r.divisor) for r in reports if r.loss_total is not None and r.divisor is not None]
    return Trained(losses=tuple(losses), parameters=gather(workers, "parameters"), gradients=gradients)


def compare(found: Trained, expected: Trained) -> Comparison:
    """Return how far `found` is from `expected`. A parameter that only one of them has counts as infinitely far."""
    result = Comparison(parameters=0.0, gradients=0.0, losses=0.0, equal=True)
    for part in ("parameters", "gradients"):
        ours, theirs = getattr(found, part), getattr(expected, part)
        for name in sorted({*ours, *theirs}):
            far, same = float("inf"), False
            if name in ours and name in theirs and ours[name].shape == theirs[name].shape:
                difference = np.abs(ours[name] - theirs[name])
                far = float(difference.max()) if difference.size else 0.0
                same = ours[name].dtype == theirs[name].dtype and ours[name].tobytes() == theirs[name].tobytes()
            if far > getattr(result, part) or not same:
                result = replace(result, **{part: max(far, getattr(result, part))})
            if not same:
                result = replace(result, equal=False, worst=result.worst or f"{part[:-1]} {name}")
    losses = max((abs(a - b) for a, b in zip(found.losses, expected.losses, strict=True)), default=0.0)
    return replace(result, losses=losses, equal=result.equal and found.losses == expected.losses)
