"""The one-process reference of `verify`: the whole network as one stage, micro-batch after micro-batch, in a loop.

It uses no schedule, worker, channel or trainer: only the lecture's formulae, and the same micro-batches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, islice, pairwise

import numpy as np

from coordinator.job.spec import JobSpec
from coordinator.plan.blas_threads import BlasThreads, blas_threads
from stages.arrays import Array
from stages.data import Dataset, batch_bounds, epoch_order, micro_batch_sizes
from stages.layers.base import Moment
from stages.losses import mean
from stages.network import name_order
from stages.stage import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The result of some training steps: the loss of each step, and by name the parameters after the last step and its
    gradients."""

    losses: tuple[float, ...]
    parameters: Mapping[str, Array]
    gradients: Mapping[str, Array]


def train_reference(
    spec: JobSpec, train: Dataset, steps: int, parameters: Mapping[str, Array] | None = None
) -> Trained:
    """Train `steps` steps of the job in this process, with as many BLAS threads as a worker has, from `parameters` if
    they are given, else from the drawn ones."""
    with BlasThreads(blas_threads(spec)), np.errstate(all="ignore"):
        return _train(spec, train, steps, parameters)


def _train(spec: JobSpec, train: Dataset, steps: int, parameters: Mapping[str, Array] | None) -> Trained:
    model, clip = spec.model_spec(), spec.training.clip_norm
    loss = model.loss_function
    stage = Stage(model, 0, len(model.network.ops), spec.optimizer(), weight_grad_group=spec.pipeline.weight_grad_group)
    if parameters is not None:
        stage.load(parameters)
    bounds = batch_bounds(len(train), spec.training.batch_size)
    rate = spec.training.rates(len(bounds))
    batches = (epoch_order(spec.seed, epoch, len(train))[first:last] for epoch in count() for first, last in bounds)
    losses, gradients = [], stage.parameters.named(stage.parameters.gradients)
    for step, rows in enumerate(islice(batches, min(steps, spec.training.n_steps(len(bounds)))), start=1):
        columns = len(rows) * model.network.output.columns
        if loss.ignore_index is not None:
            columns = loss.n_counted(train.targets(rows))
        n = loss.count(columns, stage.n_out)
        total, cuts = 0.0, np.cumsum([0, *micro_batch_sizes(len(rows), spec.training.micro_batches)])
        stage.begin_step(len(cuts) - 1)
        for j, (a, b) in enumerate(pairwise(cuts.tolist())):
            at = Moment(training=True, seed=spec.seed, step=step, first=a)
            f = stage.forward(j, train.inputs(rows[a:b]), at)
            result = loss.evaluate(f, train.targets(rows[a:b]), n)
            total += result.total
            stage.backward_input(j, result.gradient)
            stage.backward_weight(j)
        losses.append(mean(total, n))
        stage.uses.add_to(stage.parameters)
        gradients = stage.parameters.named(stage.parameters.gradients)
        scale = 1.0
        if clip is not None:
            squares = stage.parameters.squared_norms()
            scale = min(1.0, clip / (math.sqrt(sum(squares[name] for name in sorted(squares, key=name_order))) + 1e-6))
        stage.update(step, rate(step), scale)
    return Trained(
        losses=tuple(losses), parameters=stage.parameters.named(stage.parameters.values), gradients=gradients
    )
