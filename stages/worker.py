"""Performs a lane: receives, computes, sends, measures. Thread, Ray actor and test run this same class."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from stages.actions import Action, Kind
from stages.arrays import Array
from stages.batch import Batch
from stages.channel import Channel, ChannelClosed, ReceiveTimeout, Tag
from stages.chunks import CHUNKS_AHEAD, Chunks
from stages.data import Dataset, epoch_order, micro_batch_sizes
from stages.diagnosis import check_gradient, check_gradients_total, check_output
from stages.errors import NonFinite, as_failure
from stages.evaluation import EvaluationSums
from stages.faults import FaultPlan
from stages.layer_state import gathered, layer_states
from stages.layers.base import EVALUATING, TRAINING, Moment
from stages.ledger import (
    CHECKPOINT,
    EVALUATION,
    FORWARD,
    INPUT_GRADIENT,
    OTHER,
    SEND,
    UPDATE,
    WAIT_STEADY,
    WEIGHT_GRADIENT,
    Ledger,
    wait_kinds,
)
from stages.orders import (
    Evaluate,
    EvaluateReport,
    Failure,
    Gather,
    LookSaved,
    Order,
    Report,
    Result,
    Save,
    Saved,
    Saving,
    Settle,
    Settled,
    StepReport,
    TrainStep,
    Update,
    Updated,
    WorkerSetup,
)
from stages.progress import Progress
from stages.snapshots import Snapshots
from stages.stage import Stage
from stages.tied_exchange import TiedExchange
from stages.trained import first_trained_stage, performed_lane
from stages.worker_memory import worker_memory

_F, _I, _W, _B = Kind  # quicker than looking up a member
_tag = partial(tuple.__new__, Tag)  # twice as quick as Tag's own


class Worker:
    """Holds the stages that `setup` gives it. Only the workers of the first and the last stage need `train` and
    `validation`.

    `resident_before` is the resident memory of the process before the job's data and stages, in bytes. `snapshots`
    writes checkpoints, if any. `stages` are those of an earlier worker of the same setup; None makes them. `faults`
    replaces those of the setup. `recovering_since`: see Ledger.
    """

    def __init__(
        self,
        setup: WorkerSetup,
        channel: Channel,
        *,
        train: Dataset | None,
        validation: Dataset | None = None,
        resident_before: int = 0,
        snapshots: Snapshots | None = None,
        stages: Mapping[int, Stage] | None = None,
        faults: FaultPlan | None = None,
        recovering_since: float | None = None,
    ) -> None:
        self._resident_before, self._snapshots = resident_before, snapshots
        self._setup, self._channel = setup, channel
        self._faults = FaultPlan(setup.faults) if faults is None else faults
        self._data = {"train": train, "validation": validation}
        self._reads_files = train is not None and not train.in_memory
        bounds = setup.bounds
        self.stages: dict[int, Stage] = dict(stages or {}) or {
            s: Stage(
                *(setup.model, bounds[s], bounds[s + 1], setup.optimizer),
                weight_grad_group=setup.weight_grad_group,
                recompute=s in setup.recompute,
            )
            for s in setup.stages
        }
        self._last_stage, self._seed, self._loss = len(bounds) - 2, setup.model.seed, setup.model.loss_function
        self._handed: dict[Tag, Array] = {}  # from one stage of this worker to the next
        self._round, self._sizes = 0, tuple[int, ...]()
        self._step: int | None = None
        self._action: Action | None = None
        self._epoch_order: tuple[int, np.ndarray[Any, np.dtype[np.int64]]] | None = None
        self._ledger = Ledger(self.stages, recovering_since)
        self._tied = TiedExchange(setup, self.stages, self._ledger, self)
        self._chunks = Chunks(setup, self)
        self._first_trained = first_trained_stage(setup.model, bounds)
        self._lanes = {m: performed_lane(lane, self._first_trained) for m, lane in setup.lanes.items()}
        self._wait_kinds = {m: wait_kinds(lane) for m, lane in self._lanes.items()}
        self._wait_kind = WAIT_STEADY
        self._sent: dict[int, list[int]] = {}  # messages and bytes by worker, since the last report
        self.failure: Failure | None = None
        """The first failure; no order is performed after it."""
        self.progress = Progress()
        """What the worker is doing now; other threads may read it."""

    def run(self, orders: Sequence[Order]) -> Result:
        """Perform the orders. Never raises: the first failure ends the list and is in the result.

        Orders after a failure are not performed, because they build on what failed: their result is that failure again.
        """
        if self.failure is not None:
            return Result(failure=self.failure)
        self.progress.begin()
        try:
            return self._run(orders, [])
        finally:
            self.progress.rest(self._step, self._round)

    def _run(self, orders: Sequence[Order], reports: list[Report]) -> Result:
        self._ledger.open()
        try:
            with np.errstate(all="ignore"):  # `diagnosis` finds and reports NaN and infinity
                reports.extend(self._perform(order) for order in orders)
        except ReceiveTimeout as error:
            return self._failed(reports, "timeout", str(error))
        except ChannelClosed:
            return self._failed(reports, "closed", "the run was ended")
        except NonFinite as error:
            return self._failed(reports, "non_finite", str(error))
        except Exception as error:
            return self._failed(reports, **as_failure(error))
        self._action = None
        return Result(reports=tuple(reports))

    def _failed(
        self, reports: list[Report], kind: Any, message: str, trace: str = "", *, mistake: bool = False
    ) -> Result:
        failure = self.failure = Failure(
            kind=kind,
            worker=self._setup.worker,
            step=self._step,
            action=self._action,
            message=message,
            traceback=trace,
            evaluating=self.progress.evaluating,
            mistake=mistake,
        )
        return Result(reports=tuple(reports), failure=failure)

    def _perform(self, order: Order) -> Report:
        self.progress.evaluating = isinstance(order, Evaluate)
        if self._faults.planned:
            self._faults.strike_order(self._step, order)
        if isinstance(order, TrainStep):
            return self._train_step(order)
        if isinstance(order, Update):
            return self._update(order)
        if isinstance(order, Evaluate):
            return self._evaluate(order)
        if isinstance(order, Settle):
            return Settled(account=self._ledger.take(), sent=self._take_sent())
        if isinstance(order, Gather):
            return gathered(self.stages.values(), order.part)
        return self._save(order)

    # one training step ---------------------------------------------------------------------------------------------

    def _train_step(self, order: TrainStep) -> StepReport:
        self._step = order.step
        rows = self._rows(order)
        sizes = micro_batch_sizes(order.last - order.first, self._setup.micro_batches)
        if sizes != self._sizes:
            self._trim()
            self._sizes = sizes
        batch = Batch(order, rows, sizes)
        for stage in self.stages.values():
            stage.begin_step(len(sizes), alike=not order.look)
        ledger, faults = self._ledger, self._faults.of_step(order.step)
        ledger.trace = order.trace
        ledger.book_worker(OTHER)
        for action, wait_kind in zip(self._lanes[len(sizes)], self._wait_kinds[len(sizes)], strict=True):
            self._action, self._wait_kind = action, wait_kind
            self.progress.compute(order.step, action)
            if faults:
                self._faults.strike(faults, order.step, action, self.stages[action.stage])
            kind = action.kind
            if kind is _F:
                self._forward(action, batch)
            else:
                together = kind is _B and action.stage in self._setup.recompute
                if kind is not _W:
                    self._backward_input(action, batch, together=together)
                if kind is not _I and not together:
                    self.stages[action.stage].backward_weight(action.micro_batch)
                    ledger.book_action(action.stage, WEIGHT_GRADIENT, action.micro_batch)
        self._action = None
        self.progress.compute(order.step, None)
        self._tied.bring_gradients_home()
        norms: dict[str, float] = {}
        for s, stage in self.stages.items():
            norms |= stage.parameters.squared_norms()
            ledger.book(s, UPDATE)
        check_gradients_total(norms, order.step, self._setup.model.network.ops)
        self._round += 1
        return self._step_report(order, batch, norms)

    def _step_report(self, order: TrainStep, batch: Batch, norms: dict[str, float]) -> StepReport:
        account, timeline = self._ledger.take(), tuple(self._ledger.timeline)
        self._ledger.timeline.clear()
        return StepReport(
            step=order.step,
            rows=order.last - order.first,
            loss_total=batch.loss_total if self._last_stage in self.stages else None,
            divisor=batch.divisor,
            correct=batch.correct,
            squared_norms=norms,
            account=account,
            sent=self._take_sent(),
            saved_bytes={s: stage.peak_saved_bytes for s, stage in self.stages.items()},
            timeline=timeline,
            memory=worker_memory(self.stages, self._resident_before) if order.trace else None,
            dead=tuple(dead for stage in self.stages.values() for dead in stage.living.report()) if order.look else (),
        )

    def _take_sent(self) -> dict[int, tuple[int, int]]:
        sent, self._sent = self._sent, {}
        return {worker: (messages, n_bytes) for worker, (messages, n_bytes) in sent.items()}

    def _forward(self, action: Action, batch: Batch) -> None:
        s, j = action.stage, action.micro_batch
        if s == 0:
            if self._reads_files:
                self.progress.store(self._step, action)
            x = batch.inputs(self._data["train"], j)
            if self._reads_files:
                self.progress.compute(self._step, action)
        else:
            x = self.receive(s, _F, j)
            self._ledger.book(s, self._wait_kind)
        stage = self.stages[s]
        trained = s >= self._first_trained  # see [Note: untrained stages]
        at = Moment(True, self._seed, batch.order.step, batch.first(j)) if stage.draws else TRAINING
        y = stage.forward(j, x, at, look=batch.order.look) if trained else stage.infer(x, at)
        check_output(stage, x, y, at, batch.when, action)
        if s < self._last_stage:
            self._ledger.book_action(s, FORWARD, j)
            self.send(s + 1, _F, j, y)
            self._ledger.book(s, SEND)
            return
        if self._reads_files:
            self.progress.store(self._step, action)  # the targets are read
        gradient = batch.take_loss(self._loss, self._setup.model.network, self._data["train"], j, y)
        if trained:
            self._handed[_tag((self._round, s, _I, j))] = gradient
        self._ledger.book_action(s, FORWARD, j)

    def _backward_input(self, action: Action, batch: Batch, *, together: bool) -> None:
        """With `together`, compute the weight gradient too, so that a recomputed stage holds one segment at a time."""
        s, j = action.stage, action.micro_batch
        dy = self.receive(s, _I, j)
        self._ledger.book(s, self._wait_kind)
        stage = self.stages[s]
        dx = stage.backward(j, dy) if together else stage.backward_input(j, dy)
        check_gradient(stage, dx, batch.order.step, action)
        self._ledger.book_action(s, INPUT_GRADIENT, j)
        if s > self._first_trained:
            self.send(s - 1, _I, j, dx)
            self._ledger.book(s, SEND)

    def _update(self, order: Update) -> Report:
        self._ledger.book_worker(OTHER)
        self.progress.compute(self._step, None)
        for s, stage in self.stages.items():
            stage.update(order.step, order.learning_rate, order.scale)
            self._ledger.book(s, UPDATE)
        self._tied.bring_values_back()
        return Updated()

    # evaluation and gathering --------------------------------------------------------------------------------------

    def _evaluate(self, order: Evaluate) -> Report:
        self._ledger.book_worker(OTHER)
        report = self._evaluate_chunks(order)
        self._ledger.book_worker(EVALUATION)
        return report

    def _evaluate_chunks(self, order: Evaluate) -> EvaluateReport:
        self._trim()
        data = self._data[order.split]
        sums = EvaluationSums(self._setup.model, order, self._step)
        n_chunks = -(-order.total_rows // order.rows)
        # skewed by stage, so that a worker with several stages fills the pipeline instead of waiting for each chunk
        actions = sorted((j + s, -s, j) for j in range(n_chunks) for s in self.stages)
        for _, minus_s, j in actions:
            s, a, b = -minus_s, j * order.rows, min((j + 1) * order.rows, order.total_rows)
            self._action = Action(s, Kind.FORWARD, j)
            self.progress.compute(self._step, self._action)
            if s == 0:
                assert data is not None, "the worker of the first stage has the inputs"
                self.progress.store(self._step, self._action)
                x: Array = data.inputs(slice(a, b))
                self.progress.compute(self._step, self._action)
            else:
                x = self._chunks.receive(s, j)
            y = self.stages[s].infer(x)
            check_output(self.stages[s], x, y, EVALUATING, f"the evaluation after step {self._step}", self._action)
            if s < self._last_stage:
                self._chunks.send(s, j, y)
                continue
            assert data is not None, "the worker of the last stage has the targets"
            self.progress.store(self._step, self._action)
            sums.take(y, data.targets(slice(a, b)), b - a)
        for s in self.stages:
            for j in range(max(0, n_chunks - CHUNKS_AHEAD), n_chunks):
                self._chunks.await_taken(s, j)
        self._action = None
        self._round += 1
        self._trim()
        return sums.report()

    def _trim(self) -> None:
        """Free the memory of unused arrays, because arrays of other shapes follow."""
        self._sizes = ()
        for stage in self.stages.values():
            stage.trim()

    def _save(self, order: Save | LookSaved) -> Report:
        assert self._snapshots is not None, "a worker whose run has no checkpoints"
        self._ledger.book_worker(OTHER)
        self.progress.store(self._step, None)
        began = time.perf_counter()
        report: Report
        if isinstance(order, Save):
            self._snapshots.take(order.step, layer_states(self.stages.values()), copy=order.copy)
            report = Saving(time.perf_counter() - began)
        else:
            report = Saved(self._snapshots.look(wait=order.wait))
        self._ledger.book_worker(CHECKPOINT)
        return report

    # carrying ------------------------------------------------------------------------------------------------------

    def send(self, stage: int, kind: Kind, micro_batch: int, array: Array) -> None:
        """See TiedExchange's Carrier."""
        tag, to = _tag((self._round, stage, kind, micro_batch)), self._setup.placement[stage]
        if to == self._setup.worker:
            self._handed[tag] = array.copy()
        else:
            progress = self.progress
            progress.send(self._step, self._action, tag, to)
            if self._faults.loses_next:
                self._faults.loses_next = False
            else:
                self._channel.send(to, tag, array)
            progress.sent(tag)
            progress.compute(self._step, self._action)
            sent = self._sent.setdefault(to, [0, 0])
            sent[0] += 1
            sent[1] += array.nbytes

    def receive(self, stage: int, kind: Kind, micro_batch: int, sender: int | None = None) -> Array:
        """See TiedExchange's Carrier."""
        tag = _tag((self._round, stage, kind, micro_batch))
        handed = self._handed.pop(tag, None)
        if handed is not None:
            return handed
        if sender is None:
            sender = self._setup.placement[stage - 1 if kind is _F else stage + 1]
        self.progress.wait(self._step, self._action, tag, sender)
        array = self._channel.receive(tag)
        self.progress.compute(self._step, self._action)
        return array

    def _rows(self, order: TrainStep) -> np.ndarray[Any, np.dtype[np.int64]] | None:
        data = self._data["train"]
        if data is None:
            return None
        index = order.epoch_index
        if self._epoch_order is None or self._epoch_order[0] != index:
            self._epoch_order = None  # so that memory never holds two
            self._epoch_order = (index, epoch_order(self._setup.model.seed, index, len(data.x)))
        return self._epoch_order[1][order.first : order.last]
