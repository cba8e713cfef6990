"""The lecture's values as the pipeline computes them: one layer a stage, one worker a stage, arrays sent between them.

    x ─▸ stage 0 ──f₀──▸ stage 1 ──h₁──▸ stage 2 ──f₁──▸ … ──h₃──▸ stage 6 ─▸ f₃ ─▸ ℓ
         β₀, Ω₀ ◂∂ℓ/∂f₀─  a[·]  ◂∂ℓ/∂h₁─ β₁, Ω₁ ◂∂ℓ/∂f₁─ … ◂∂ℓ/∂h₃─  β₃, Ω₃ ◂ ∂ℓ/∂f₃

Stage 2k outputs f_k and stage 2k − 1 outputs h_k; each stage gets back ∂ℓ/∂ of its output.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from coordinator.job.spec import JobSpec
from coordinator.lecture.formulae import Values, slope, symbol, weight_letter
from coordinator.lecture.networks import DEPTH, LectureNetwork
from coordinator.plan.blueprint import make_blueprint
from coordinator.train.failures import first_cause
from stages.arrays import Array
from stages.channel import LocalExchange
from stages.data import Dataset, epoch_order
from stages.layers.base import EVALUATING, Moment
from stages.orders import Gather, Order, Result, StepReport, TrainStep
from stages.spec import ModelSpec, OptimizerSpec
from stages.stage import Stage
from stages.worker import Worker


class WatchedStage(Stage):
    """A stage that records its output and its ∂ℓ/∂output by micro-batch: both (n_out, rows)."""

    def __init__(
        self, model: ModelSpec, first: int, last: int, optimizer: OptimizerSpec, *, weight_grad_group: int = 1
    ) -> None:
        super().__init__(model, first, last, optimizer, weight_grad_group=weight_grad_group)
        self.outputs: dict[int, Array] = {}
        self.output_slopes: dict[int, Array] = {}

    def forward(self, micro_batch: int, x: Array, at: Moment = EVALUATING, *, look: bool = False) -> Array:
        """See Stage."""
        y = super().forward(micro_batch, x, at, look=look)
        self.outputs[micro_batch] = y.copy()
        return y

    def backward_input(self, micro_batch: int, dy: Array) -> Array:
        """See Stage."""
        self.output_slopes[micro_batch] = dy.copy()
        return super().backward_input(micro_batch, dy)


def pipeline_values(network: LectureNetwork, job: JobSpec | None = None, data: Dataset | None = None) -> Values:
    """Forward and backward of one batch through seven workers; every value and derivative by its symbol.

    `job` and `data` (rows, features) are the network's own if they are not given. Raises JobFailed.
    """
    job = job or network.job()
    data = data or Dataset(x=network.x.reshape(-1, network.rows).T, y=network.y.reshape(-1, network.rows).T)
    blueprint = make_blueprint(job, len(data))
    exchange = LocalExchange(job.resources.hang_timeout)
    workers = [Worker(blueprint.setup(w), exchange, train=data) for w in range(blueprint.n_workers)]
    stages: dict[int, WatchedStage] = {}
    for worker in workers:
        for s in worker.stages:
            first, last = blueprint.bounds[s : s + 2]
            group = job.pipeline.weight_grad_group
            stages[s] = WatchedStage(job.model_spec(), first, last, job.optimizer(), weight_grad_group=group)
            worker.stages[s] = stages[s]
        for stage in worker.stages.values():
            stage.load(network.parameters())
    orders: list[Order] = [TrainStep(step=1, epoch_index=0, first=0, last=len(data)), Gather(part="gradients")]

    def perform(worker: Worker) -> Result:
        result = worker.run(orders)
        if result.failure is not None:
            exchange.close()
        return result

    with ThreadPoolExecutor(len(workers)) as pool:
        results = list(pool.map(perform, workers))
    if failures := [result.failure for result in results if result.failure is not None]:
        raise first_cause(failures, blueprint.program)

    order = epoch_order(job.seed, 0, len(data))
    values: Values = {}
    gradients: dict[str, Array] = {}
    for result in results:
        for report in result.reports:
            if isinstance(report, StepReport) and report.loss_total is not None:
                values["ℓ"] = np.array(report.loss_total)
            elif isinstance(report, Mapping):
                gradients.update(report)
    for k in range(DEPTH):
        values[symbol("f", k)] = _columns(stages[2 * k].outputs, order)
        values[slope("f", k)] = _columns(stages[2 * k].output_slopes, order)
        values[slope("β", k)] = gradients[f"{2 * k}.bias"]
        values[slope(weight_letter(network), k)] = gradients[f"{2 * k}.weight"]
        if k:
            values[symbol("h", k)] = _columns(stages[2 * k - 1].outputs, order)
            values[slope("h", k)] = _columns(stages[2 * k - 1].output_slopes, order)
    return {name: value.reshape(()) for name, value in values.items()} if network.x.ndim == 0 else values


def _columns(parts: Mapping[int, Array], order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Array:
    """Put the micro-batches side by side, with each sample in the column that it has in the data."""
    joined = np.concatenate([parts[j] for j in sorted(parts)], axis=1)
    result = np.empty_like(joined)
    result[:, order] = joined
    return result
