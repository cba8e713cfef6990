"""The loop over epochs and steps: it decides the rows, the updates and the evaluations, and makes the rows of metrics.

[Note: steps ahead] Without clipping no decision needs all stages, so updates are ordered ahead: one submission holds
several steps, and a second one waits at the workers while the first is performed. Steps then overlap as far as the
arrays allow, and no worker waits for the coordinator. With clipping each update needs all stages' gradient norms, so
its order goes out together with the next step's. If an untrained stage sends to another worker, only orders keep it
from running ahead: then a submission is one step, and the arrays of at most two steps wait for that worker.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice

from coordinator.checkpoints.position import START, Position
from coordinator.plan.blueprint import Blueprint
from coordinator.timing.accounts import Accounts, AccountsLine, Bubble, await_slowest, step_seconds
from coordinator.timing.prediction import Prediction, Predictor
from coordinator.train.rows import JudgedEvaluation, TrainedStep
from coordinator.train.saving import Checkpointing
from coordinator.train.text_measure import TextMeasure
from coordinator.train.workers import Ticket, Workers, shared_cores
from stages.data import batch_bounds, micro_batch_sizes
from stages.living_units import ENOUGH_COLUMNS
from stages.losses import mean
from stages.network import name_order
from stages.orders import (
    Evaluate,
    EvaluateReport,
    LookSaved,
    Order,
    Report,
    Save,
    Saved,
    Saving,
    Settle,
    Settled,
    StepReport,
    TrainStep,
    Update,
)
from stages.trained import STEPS_RUN_AHEAD, runs_ahead

_SUBMISSION_S = 0.25
"""The intended time of a submission: long compared with the cost of a call, short for a person who watches."""
_MOST_STEPS = 512
_AHEAD = STEPS_RUN_AHEAD  # submissions under way
_SAMPLE_S = 1.0
_LOOK_EVERY = 16
"""Workers look for dead units every so many steps at first, later every eighth part of the steps so far."""


class Trainer:
    """Runs a job's steps on `workers`. Iterate over `rows()`; `stop()` ends it after the steps in progress.

    `accounts` has the times of an earlier trainer of the run, to which this one adds.

    `start` is the position of the workers' state; the first step is the next. `checkpoints` saves the state now and
    then.

    If `validation_rows` is 0, nothing is evaluated. The first `trace_steps` steps have a timeline, and as a sample so
    has about one step a second.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        workers: Workers,
        *,
        train_rows: int,
        validation_rows: int = 0,
        text: TextMeasure | None = None,
        trace_steps: int = 0,
        max_steps: int | None = None,
        start: Position = START,
        checkpoints: Checkpointing | None = None,
        accounts: Accounts | None = None,
    ) -> None:
        self._spec = blueprint.spec
        self._loss = self._spec.model_spec().loss_function
        self._workers = workers
        self._validation_rows, self._text = validation_rows, text
        self._to_trace = trace_steps
        self.closing_accounts: AccountsLine | None = None
        """The accounts' last line, set after `rows()` has ended: it includes the last update and evaluation."""
        self._last: TrainStep | None = None
        self.traced: set[int] = set()
        """Steps that were traced on request, not as samples."""
        self._stopping = False
        self._recent: deque[float] = deque(maxlen=32)
        program = blueprint.program
        self.accounts = accounts or Accounts(program.placement)
        self.ends: list[float] | None = None
        """When each worker's last account ended, in seconds of its clock; None before the first."""
        first_trained = blueprint.first_trained
        self._one_at_a_time = self._spec.training.clip_norm is not None or runs_ahead(program.placement, first_trained)
        self._predictor = Predictor(
            program,
            self._spec.pipeline.weight_grad_group,
            first_trained=first_trained,
            shared=shared_cores(workers.places(), self._spec.resources.cpus_per_worker),
            one_at_a_time=self._spec.training.clip_norm is not None,
        )
        self._micro_batches = program.n_micro_batches
        self._last_stages = [lane[-1].stage for lane in program.lanes]  # of each worker's lane
        self._ends: list[float] = []  # end of the last step by worker, on this process's clock; with clipping
        self._next_sample, self._next_look, self._rows_to_look = 0.0, 1, 0
        self._batches = batch_bounds(train_rows, self._spec.training.batch_size)
        total = self._spec.training.n_steps(len(self._batches))
        self._rate = self._spec.training.rates(len(self._batches))
        self.steps_total = total if max_steps is None else min(total, max_steps)
        """Steps of the whole job."""
        self._last_full = next((step for step in range(self.steps_total, 0, -1) if self._is_full(step)), None)
        self._scale: float | None = None  # of the update that is not ordered yet, with clipping
        self._start, self._checkpoints = start, checkpoints
        self.steps_done = start.step
        self._evaluated: int | None = None if start.owes_evaluation else start.step

    def stop(self) -> None:
        """Begin no new step. `rows()` ends after it has reported the steps in progress; their updates are all made."""
        self._stopping = True

    def trace(self, steps: int) -> None:
        """Record a timeline of the next `steps` steps to begin."""
        self._to_trace = steps

    @property
    def _predicted(self) -> Bubble | None:
        return None if self.prediction is None else self.prediction.bubble

    @property
    def prediction(self) -> Prediction | None:
        """The last dry run with measured times; None before the first full step."""
        return self._predictor.last

    def rows(self) -> Iterator[TrainedStep | JudgedEvaluation]:
        """Train. Yield a row for each step and each evaluation, in order. Raises JobFailed with the first cause."""
        clipping = self._spec.training.clip_norm is not None
        under_way: deque[tuple[Sequence[Order], Ticket]] = deque()
        for orders in self._submissions():
            under_way.append((orders, self._workers.submit(orders)))
            while len(under_way) >= (1 if clipping else _AHEAD):
                yield from self._collect(*under_way.popleft())
        while under_way:
            yield from self._collect(*under_way.popleft())
        rest: list[Order] = [] if self._scale is None else [self._owed_update()]
        if self._checkpoints is not None:
            if self._checkpoints.pending:  # it becomes whole before the one of the end begins
                under_way.append(([LookSaved(wait=True)], self._workers.submit([LookSaved(wait=True)])))
                yield from self._collect(*under_way.popleft())
            if self._checkpoints.at_end(self.steps_done, owes_evaluation=self.owes_evaluation()):
                rest.append(Save(self.steps_done, copy=False))
            rest.append(LookSaved(wait=True))
        orders = [*rest, Settle()]
        self._settle(orders, self._workers.submit(orders))

    def _settle(self, orders: Sequence[Order], ticket: Ticket) -> None:
        """Take in the reports of the time after the last step."""
        everything = ticket.collect()
        for place, order in enumerate(orders):
            self._take_saved(order, [worker[place] for worker in everything])
        reports = [report for worker in everything for report in worker if isinstance(report, Settled)]
        self.accounts.add_rest(reports)
        if self._last is not None:
            ended = self._utc(report.account.ended for report in reports)
            self.closing_accounts = self.accounts.snapshot(self._last.step, ended, self._predicted)

    # what to do ----------------------------------------------------------------------------------------------------

    def _work(self) -> Iterator[TrainStep | Evaluate | Save]:
        """The whole job in order: every step, an evaluation after each epoch and after the last step, and
        checkpoints."""
        batches = self._batches
        if self._start.owes_evaluation:
            yield self._evaluate_order()
        for step in range(self._start.step + 1, self.steps_total + 1):
            epoch_index, place = divmod(step - 1, len(batches))
            first, last = batches[place]
            yield TrainStep(step=step, epoch_index=epoch_index, first=first, last=last)
            if self._is_evaluated(step):
                yield self._evaluate_order()
            if self._checkpoints is not None and self._checkpoints.due(step):
                yield Save(step)

    def _is_evaluated(self, step: int) -> bool:
        """Whether an evaluation follows this step."""
        every, n = self._spec.training.evaluate_every, len(self._batches)
        due = step % (n if every is None else every) == 0 or step == self.steps_total
        return bool(self._validation_rows) and due

    def owes_evaluation(self) -> bool:
        """Whether the evaluation after the last step made is still to come."""
        return self.steps_done > 0 and self._is_evaluated(self.steps_done) and self._evaluated != self.steps_done

    def _submissions(self) -> Iterator[Sequence[Order]]:
        """Cut the job into lists of orders, by the times and norms of the steps so far."""
        work, clipping = self._work(), self._spec.training.clip_norm is not None
        while not self._stopping and (part := list(islice(work, self._orders_ahead()))):
            orders: list[Order] = [] if self._scale is None else [self._owed_update()]
            steps = [order.step for order in part if isinstance(order, TrainStep)]
            typical = steps[len(steps) // 2] if steps else 0  # the first step may have waited for this submission
            for order in part:
                orders.append(self._perhaps_traced(order, typical))
                if isinstance(order, TrainStep) and not clipping:
                    orders.append(Update(order.step, self._rate(order.step)))
            if self._checkpoints is not None and self._checkpoints.pending:
                orders.append(LookSaved())
            yield orders

    def _perhaps_traced(self, order: TrainStep | Evaluate | Save, typical: int) -> TrainStep | Evaluate | Save:
        if not isinstance(order, TrainStep):
            return order
        order = self._perhaps_looking(order)
        now = time.monotonic()
        if self._to_trace > 0:
            self._to_trace -= 1
            self.traced.add(order.step)
        elif (now < self._next_sample or order.step != typical) and order.step != self._last_full:
            return order
        self._next_sample = now + _SAMPLE_S
        return order._replace(trace=True)

    def _perhaps_looking(self, order: TrainStep) -> TrainStep:
        """Look for dead units now and then, and in as many steps as give enough rows."""
        if order.step >= self._next_look or order.step == self._last_full:
            self._next_look, self._rows_to_look = order.step + max(_LOOK_EVERY, order.step // 8), ENOUGH_COLUMNS
        if self._rows_to_look <= 0:
            return order
        self._rows_to_look -= order.last - order.first
        return order._replace(look=True)

    def _evaluate_order(self) -> Evaluate:
        rows = min(self._spec.training.evaluate_batch_size, self._validation_rows)
        return Evaluate(split="validation", total_rows=self._validation_rows, rows=rows)

    def _orders_ahead(self) -> int:
        if not self._recent or self._one_at_a_time:
            return 1
        return max(1, min(_MOST_STEPS, int(_SUBMISSION_S / max(statistics.median(self._recent), 1e-9))))

    def _owed_update(self) -> Update:
        assert self._scale is not None, "no update is owed"
        scale, self._scale = self._scale, None
        return Update(self.steps_done, self._rate(self.steps_done), scale)

    # what came of it -----------------------------------------------------------------------------------------------

    def _collect(self, orders: Sequence[Order], ticket: Ticket) -> Iterator[TrainedStep | JudgedEvaluation]:
        reports = ticket.collect()
        steps = [place for place, order in enumerate(orders) if isinstance(order, TrainStep)]
        for place, order in enumerate(orders):
            own = [worker[place] for worker in reports]
            if isinstance(order, TrainStep):
                found = [report for report in own if isinstance(report, StepReport)]
                yield self._step_row(order, found, ends_submission=len(steps) > 1 and place == steps[-1])
            elif isinstance(order, Evaluate):
                yield self._eval_row(own)
            else:
                self._take_saved(order, own)

    def _take_saved(self, order: Order, own: Sequence[Report]) -> None:
        if self._checkpoints is None:
            return
        if isinstance(order, Save):
            self._checkpoints.copied(order.step, [r.seconds for r in own if isinstance(r, Saving)])
        elif isinstance(order, LookSaved):
            self._checkpoints.written([r.outcome for r in own if isinstance(r, Saved)])

    def _is_full(self, step: int) -> bool:
        """Whether the step has as many micro-batches as the program of the prediction."""
        first, last = self._batches[(step - 1) % len(self._batches)]
        return len(micro_batch_sizes(last - first, self._spec.training.micro_batches)) == self._micro_batches

    def _step_row(self, step: TrainStep, steps: Sequence[StepReport], *, ends_submission: bool) -> TrainedStep:
        steps = self._with_waits_for_the_slowest(steps)
        seconds = max(1e-9, *(step_seconds(report.account) for report in steps))
        self._recent.append(seconds)
        bubble = self.accounts.add(steps)
        self.ends = [report.account.ended for report in steps]
        self._last = step
        predicted = None
        if self._is_full(step.step):
            self._predictor.add(steps)
            predicted = self._predicted
        norm = gradient_norm(steps)
        if self._spec.training.clip_norm is not None:
            self._scale = clip_scale(norm, self._spec.training.clip_norm)
        total, count = next((r.loss_total, r.divisor or 0) for r in steps if r.loss_total is not None)
        correct = next((r.correct for r in steps if r.correct is not None), None)
        self.steps_done += 1
        rows = step.last - step.first
        most, average = _memory(steps)
        return TrainedStep(
            step=step.step,
            epoch=step.epoch_index + 1,
            samples=rows,
            loss=mean(total, count),
            seconds=seconds,
            grad_norm=norm,
            learning_rate=self._rate(step.step),
            bubble=bubble.total,
            accuracy=None if correct is None else mean(correct, count),
            counted=self._counted(count),
            bubble_predicted=None if predicted is None else predicted.total,
            summed=self._loss.is_sum,
            memory_most=most,
            memory_mean=average,
            reports=tuple(steps),
            accounts_then=self.accounts.snapshot(
                step.step, self._utc(report.account.ended for report in steps), self._predicted
            ),
            ends_submission=ends_submission,
        )

    def _counted(self, count: int) -> int | None:
        return None if self._loss.ignore_index is None else count

    def _with_waits_for_the_slowest(self, steps: Sequence[StepReport]) -> Sequence[StepReport]:
        """With clipping, apply `await_slowest` to the reports."""
        if self._spec.training.clip_norm is None:
            return steps
        slowest = max(self._ends, default=0.0)
        waits = [slowest - end for end in self._ends] or [0.0] * len(steps)
        clocks = self._workers.clocks()
        self._ends = [report.account.ended + clock.offset for report, clock in zip(steps, clocks, strict=True)]
        return [
            report._replace(account=await_slowest(report.account, wait, stage))
            for report, wait, stage in zip(steps, waits, self._last_stages, strict=True)
        ]

    def _utc(self, ends: Iterable[float]) -> float:
        """Return when the last worker ended, in seconds UTC; `ends` are on the workers' clocks."""
        ended = max(end + clock.offset for end, clock in zip(ends, self._workers.clocks(), strict=True))
        return ended + time.time() - time.perf_counter()

    def _eval_row(self, reports: Sequence[Report]) -> JudgedEvaluation:
        self._evaluated = self.steps_done
        report = next(r for r in reports if isinstance(r, EvaluateReport) and r.rows)
        perplexity, bits = (None, None) if self._text is None else self._text.of(report.loss_total, report.divisor)
        return JudgedEvaluation(
            step=self.steps_done,
            epoch=-(-self.steps_done // len(self._batches)),
            loss=mean(report.loss_total, report.divisor),
            accuracy=None if report.correct is None else mean(report.correct, report.divisor),
            samples=report.rows,
            counted=self._counted(report.divisor),
            perplexity=perplexity,
            bits_per_byte=bits,
            summed=self._loss.is_sum,
            quality=report.quality,
        )


def _memory(reports: Sequence[StepReport]) -> tuple[int, int] | tuple[None, None]:
    """Return the job's memory in the worker with the most, and in a worker on average, in bytes; None if not
    sampled."""
    found = [report.memory.job for report in reports if report.memory is not None]
    return (max(found), round(sum(found) / len(found))) if found else (None, None)


def gradient_norm(reports: Sequence[StepReport]) -> float:
    """Return the norm of all stages' gradients together, summed in layer order so that no cut into stages changes
    it."""
    squares = {name: value for report in reports for name, value in report.squared_norms.items()}
    return math.sqrt(sum(squares[name] for name in _in_layer_order(tuple(squares))))


@lru_cache(maxsize=64)
def _in_layer_order(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(names, key=name_order))


def clip_scale(norm: float, limit: float) -> float:
    """Return the factor of the gradients, as torch.nn.utils.clip_grad_norm_: min(1, limit / (norm + 1e-6))."""
    return min(1.0, limit / (norm + 1e-6))
