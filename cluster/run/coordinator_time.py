"""How long the coordinator works on a step of a job, measured in this process with workers that answer at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

from cluster.actors.packing import pack_orders, pack_result, unpack_result
from coordinator.job.spec import JobSpec
from coordinator.plan.blueprint import Blueprint, make_blueprint
from coordinator.plan.settings import PipelineSettings, trial_job
from coordinator.train.trainer import Trainer
from coordinator.train.workers import ClockFix, WorkerPlace
from stages.ledger import STAGE_KINDS, WORKER_KINDS, Account
from stages.orders import Order, Report, Result, Settled, StepReport, TrainStep, Update, Updated

_STEPS = 300
_STEP_S = 1e-3
"""Of the steps that are told: so a submission has many."""


def coordinator_seconds(spec: JobSpec, n_workers: int) -> float:
    """Return the CPU seconds that the coordinator of `n_workers` workers takes for a step: to pack orders, and to
    unpack, sum and judge the reports. A run's files come on top."""
    n = min(n_workers, len(spec.model_spec().network.ops))
    training = spec.training
    settings = PipelineSettings(stages=n, workers=n, schedule="gpipe", micro_batches=training.micro_batches)
    job = trial_job(spec, settings)
    endless = job.model_copy(update={"training": training.model_copy(update={"epochs": 10 * _STEPS, "steps": None})})
    blueprint = make_blueprint(endless, training.batch_size)
    trainer = Trainer(blueprint, _PromptWorkers(blueprint), train_rows=training.batch_size, max_steps=_STEPS)
    began = time.thread_time()
    for _ in trainer.rows():
        pass
    return (time.thread_time() - began) / _STEPS


class _Prompt:
    """A submission whose reports are there at once, packed as they come from workers."""

    def __init__(self, packed: Sequence[bytes | Result]) -> None:
        self._packed = packed

    def collect(self) -> Sequence[Sequence[Report]]:
        return [unpack_result(one).reports for one in self._packed]


class _PromptWorkers:
    """Workers that report a step of `_STEP_S` for every order. What they do themselves counts, too: it is little."""

    memory_limit = None

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint, self._now = blueprint, 0.0
        network = blueprint.spec.model_spec().network
        self._names = [
            [name for op in network.ops[first:stop] for name, _ in op.parameters]
            for first, stop in pairwise(blueprint.bounds)
        ]

    def places(self) -> Sequence[WorkerPlace]:
        return []

    def clocks(self) -> Sequence[ClockFix]:
        return [ClockFix()] * self._blueprint.n_workers

    def close(self) -> None:
        pass

    def submit(self, orders: Sequence[Order]) -> _Prompt:
        pack_orders(orders)
        began = self._now
        self._now += _STEP_S * sum(isinstance(order, TrainStep) for order in orders)
        return _Prompt([pack_result(orders, self._result(orders, w, began)) for w in range(self._blueprint.n_workers)])

    def _result(self, orders: Sequence[Order], worker: int, now: float) -> Result:
        reports: list[Report] = []
        for order in orders:
            if isinstance(order, TrainStep):
                reports.append(self._step(order, worker, now))
                now += _STEP_S
            elif isinstance(order, Update):
                reports.append(Updated())
            else:
                reports.append(Settled(self._account(worker, now), {}))
        return Result(reports=tuple(reports))

    def _step(self, order: TrainStep, worker: int, now: float) -> StepReport:
        is_last = worker == self._blueprint.n_workers - 1
        return StepReport(
            step=order.step,
            rows=order.last - order.first,
            loss_total=1.0 if is_last else None,
            divisor=order.last - order.first if is_last else None,
            correct=None,
            squared_norms=dict.fromkeys(self._names[worker], 1.0),
            account=self._account(worker, now),
            sent={other: (1, 1) for other in (worker - 1, worker + 1) if 0 <= other < self._blueprint.n_workers},
            saved_bytes={worker: 1},
        )

    def _account(self, worker: int, now: float) -> Account:
        stage = (_STEP_S / len(STAGE_KINDS),) * len(STAGE_KINDS)
        return Account(now, now + _STEP_S, {worker: stage}, (0.0,) * len(WORKER_KINDS), cpu=_STEP_S)
