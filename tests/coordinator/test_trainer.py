"""The trainer's decisions, with workers that only answer, without threads and arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from coordinator.job.spec import JobSpec
from coordinator.plan.blueprint import make_blueprint
from coordinator.train.rows import EvalRow, StepRow, TrainedStep
from coordinator.train.trainer import Trainer, clip_scale
from coordinator.train.workers import ClockFix, WorkerPlace
from stages.ledger import Account
from stages.orders import (
    Evaluate,
    EvaluateReport,
    Order,
    Report,
    Settle,
    Settled,
    StepReport,
    TrainStep,
    Update,
    Updated,
)
from tests.jobs import digits_job


@dataclass
class _Answers:
    """Answers every order at once with a gradient of norm 5, and records the orders."""

    asked: list[Sequence[Order]] = field(default_factory=list)
    memory_limit: int | None = None

    def places(self) -> Sequence[WorkerPlace]:
        return ()

    def submit(self, orders: Sequence[Order]) -> _Ticket:
        self.asked.append(list(orders))
        return _Ticket([_answer(order) for order in orders])

    def clocks(self) -> Sequence[ClockFix]:
        return [ClockFix()]

    def close(self) -> None:
        pass


@dataclass
class _Ticket:
    reports: list[Report]

    def collect(self) -> Sequence[Sequence[Report]]:
        return [self.reports]


def _answer(order: Order) -> Report:
    if isinstance(order, TrainStep):
        rows = order.last - order.first
        return StepReport(
            step=order.step, rows=rows, loss_total=2.0 * rows, divisor=rows, correct=0,
            squared_norms={"0.weight": 9.0, "0.bias": 16.0},
            account=_account(order.step),
            sent={}, saved_bytes={0: 0},
        )  # fmt: skip
    if isinstance(order, Evaluate):
        n = order.total_rows
        return EvaluateReport(rows=n, loss_total=1.0 * n, divisor=n, correct=n)
    if isinstance(order, Settle):
        return Settled(
            account=Account(9.0, 9.75, {0: (0.0, 0.0, 0.0, 0.25) + (0.0,) * 4}, (0.0, 0.0, 0.5, 0.0)), sent={}
        )
    return Updated()


def _account(step: int) -> Account:
    """Return a tenth of a second, and half a second of evaluation before step 11."""
    evaluation = 0.5 if step == 11 else 0.0
    began = 0.1 * (step - 1) + (0.5 if step > 11 else 0.0)
    stage = (0.03, 0.02, 0.01, 0.01, 0.01, 0.0, 0.0, 0.01)
    return Account(began, began + 0.1 + evaluation, {0: stage}, (0.0, 0.0, evaluation, 0.01))


def _run(spec: JobSpec, *, rows: int = 1000, max_steps: int | None = None) -> tuple[_Answers, Trainer]:
    workers = _Answers()
    trainer = Trainer(make_blueprint(spec, rows), workers, train_rows=rows, validation_rows=7, max_steps=max_steps)
    return workers, trainer


def _flat(workers: _Answers) -> list[str]:
    names = {TrainStep: "step", Update: "update", Evaluate: "evaluate", Settle: "settle"}
    return [names[type(order)] for orders in workers.asked for order in orders]


def test_while_rows_are_handed_out_the_workers_have_another_submission() -> None:
    """However long the rows take, no worker waits for the coordinator between two submissions, except at the end."""
    workers, trainer = _run(digits_job(stages=1), rows=100_000, max_steps=200)
    made, seen = 0, list[int]()
    for row in trainer.rows():
        made += isinstance(row, StepRow)
        ordered = sum(isinstance(order, TrainStep) for orders in workers.asked for order in orders)
        seen.append(ordered - made)
        last = [order.step for order in workers.asked[-1] if isinstance(order, TrainStep)]
        assert last == [] or row.step < last[0] or ordered == 200, f"nothing is ordered beyond step {row.step}"
    assert made == 200
    assert max(seen) <= 2 * 512


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("max_steps", [None, 1, 9, 10, 11, 20])
def test_every_step_is_followed_by_its_update_before_anything_else(clip: float | None, max_steps: int | None) -> None:
    spec = digits_job(stages=1).replace(training__clip_norm=clip) if clip else digits_job(stages=1)
    workers, trainer = _run(spec, max_steps=max_steps)
    rows = list(trainer.rows())
    steps = 20 if max_steps is None else max_steps
    evaluations = -(-steps // 10)
    flat = _flat(workers)
    assert flat.pop() == "settle", "what follows the last step is accounted, too"
    assert "settle" not in flat
    assert flat.count("step") == flat.count("update") == steps
    assert [flat[i + 1] for i, name in enumerate(flat) if name == "step"] == ["update"] * steps
    assert flat.count("evaluate") == evaluations == sum(isinstance(row, EvalRow) for row in rows)
    assert len(rows) == steps + evaluations


def test_the_last_line_of_the_accounts_has_the_last_update_and_evaluation() -> None:
    _, trainer = _run(digits_job(stages=1), max_steps=3)
    last = [row for row in trainer.rows() if isinstance(row, TrainedStep)][-1].accounts
    assert last is not None
    assert trainer.closing_accounts is not None
    closing = trainer.closing_accounts.as_dict()
    assert closing["step"] == last["step"] == 3
    assert closing["wall_us"][0] - last["wall_us"][0] == 750_000
    assert closing["worker_us"][0][2] - last["worker_us"][0][2] == 500_000


def test_clipping_scales_by_the_norm_of_all_parameters_together() -> None:
    workers, trainer = _run(digits_job(stages=1).replace(training__clip_norm=0.5), max_steps=2)
    rows = list(trainer.rows())
    assert rows[0].grad_norm == 5.0  # type: ignore[union-attr]
    updates = [order for orders in workers.asked for order in orders if isinstance(order, Update)]
    assert [update.scale for update in updates] == [0.5 / (5.0 + 1e-6)] * 2


def test_clip_scale_never_enlarges() -> None:
    assert clip_scale(0.1, 1.0) == 1.0
    assert clip_scale(math.sqrt(2), 1.0) == pytest.approx(1 / math.sqrt(2), rel=1e-5)


def test_without_clipping_several_steps_are_one_call_and_with_it_one() -> None:
    for clip, most in ((None, 2), (1.0, 1)):
        spec = digits_job(stages=1)
        workers, trainer = _run(spec.replace(training__clip_norm=clip) if clip else spec)
        list(trainer.rows())
        sizes = [sum(isinstance(order, TrainStep) for order in orders) for orders in workers.asked]
        assert max(sizes) >= most if clip is None else max(sizes) == 1


@pytest.mark.parametrize("clip", [None, 1.0])
def test_stop_ends_with_every_update_made(clip: float | None) -> None:
    spec = digits_job(stages=1).replace(training__clip_norm=clip) if clip else digits_job(stages=1)
    workers, trainer = _run(spec)
    for count, _ in enumerate(trainer.rows()):
        if count == 3:
            trainer.stop()
    flat = _flat(workers)
    assert 4 <= flat.count("step") == flat.count("update") < 20
    assert trainer.steps_done == flat.count("step")


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_step_lasts_from_the_end_of_the_one_before_with_its_update_and_without_evaluations(
    clip: float | None,
) -> None:
    spec = digits_job(stages=1).replace(training__clip_norm=clip) if clip else digits_job(stages=1)
    _, trainer = _run(spec)
    steps = [row for row in trainer.rows() if isinstance(row, StepRow)]
    for row in steps:
        assert row.seconds == pytest.approx(0.1)
        assert row.bubble == pytest.approx(0.02 / 0.1)
        assert row.bubble_predicted == pytest.approx(0.0)  # a single stage never waits
