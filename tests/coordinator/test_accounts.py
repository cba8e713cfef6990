"""Accounts of real workers, threads here: no time is missing or counted twice, and the files agree."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import numpy as np
import pytest

from cluster.data.sources import load_data
from coordinator.job.spec import JobSpec
from coordinator.plan.blueprint import make_blueprint
from coordinator.timing.accounts import (
    Accounts,
    AccountsLine,
    as_seconds,
    await_slowest,
    recent_bubble,
    step_bubble,
    step_seconds,
)
from coordinator.train.local import LocalWorkers
from coordinator.train.rows import EvalRow, Row, TrainedStep
from coordinator.train.trainer import Trainer
from stages.ledger import BUBBLE_KINDS, EVALUATION, OTHER, STAGE_KINDS, WAIT_DRAIN, WAIT_STEADY, WORKER_KINDS, Account
from stages.orders import Settled
from tests.jobs import digits_job


def _train(spec: JobSpec, trace_steps: int = 0) -> list[Row]:
    data = load_data(spec)
    blueprint = make_blueprint(spec, len(data.train))
    with contextlib.closing(LocalWorkers(blueprint, train=data.train, validation=data.validation)) as workers:
        trainer = Trainer(
            blueprint,
            workers,
            train_rows=len(data.train),
            validation_rows=len(data.validation),
            trace_steps=trace_steps,
        )
        return list(trainer.rows())


@pytest.mark.parametrize(("schedule", "stages"), [("gpipe", 3), ("1f1b", 2), ("zb-h1", 3), ("interleaved-1f1b", 4)])
def test_no_time_is_missing_and_none_is_counted_twice(schedule: str, stages: int) -> None:
    spec = digits_job(stages=stages, schedule=schedule).replace(data__validation=0.2, training__clip_norm=1.0)
    rows = _train(spec)
    steps = [row for row in rows if isinstance(row, TrainedStep)]
    n_workers = len(steps[0].reports)
    assert n_workers == (2 if schedule == "interleaved-1f1b" else stages)
    for w in range(n_workers):
        accounts = [row.reports[w].account for row in steps]
        assert all(a.ended == b.began for a, b in pairwise(accounts)), "a gap between two steps"
        for account in accounts:
            booked = sum(account.worker) + sum(map(sum, account.stages.values()))
            assert booked == pytest.approx(account.ended - account.began, rel=1e-9)
            assert min(account.worker) >= 0
            assert min(map(min, account.stages.values())) >= 0
        total = steps[-1].accounts
        assert total is not None
        wall = accounts[-1].ended - accounts[0].began
        assert total["wall_us"][w] / 1e6 == pytest.approx(wall, rel=1e-3)
        evaluated = sum(account.worker[EVALUATION] for account in accounts)
        assert evaluated > 0, "the evaluation after the first epoch lies between two steps"
        assert total["worker_us"][w][EVALUATION] / 1e6 == pytest.approx(evaluated, abs=1e-6)
    assert sum(isinstance(row, EvalRow) for row in rows) == 2


def test_the_wait_for_the_slowest_before_the_next_order_is_the_schedules_drain() -> None:
    account = Account(0.0, 10.0, {0: (8.0,) + (0.0,) * 7}, (0.0, 0.0, 0.0, 2.0))
    for waited, moved in ((1.5, 1.5), (5.0, 2.0), (-1.0, 0.0), (0.0, 0.0)):
        after = await_slowest(account, waited, 0)
        assert after.stages[0][WAIT_DRAIN] == moved
        assert after.worker[OTHER] == 2.0 - moved
        assert sum(after.worker) + sum(after.stages[0]) == 10.0
    assert step_bubble([await_slowest(account, 1.5, 0)]).total == pytest.approx(0.15)


def test_with_clipping_a_worker_that_is_done_early_waits_in_the_schedule() -> None:
    """GPipe's last stage ends first; without the correction its wait for the next order would belong to no stage."""
    rows = [
        row
        for row in _train(digits_job(stages=2, schedule="gpipe").replace(training__clip_norm=1.0))
        if isinstance(row, TrainedStep)
    ]
    for before, row in pairwise(rows):
        gap = max(report.account.ended for report in before.reports) - before.reports[1].account.ended
        drain = row.reports[1].account.stages[1][WAIT_DRAIN]
        assert drain >= min(gap, drain + row.reports[1].account.worker[OTHER]) - 1e-9


def test_a_lines_bubble_is_that_of_the_last_one_to_two_seconds() -> None:
    """Yield steps of 0.3 s. In each, stage 0 of two waits for another share of the time."""
    rng = np.random.default_rng(5)
    accounts, shares = Accounts([0, 1]), rng.uniform(0, 1, 20)
    for step, share in enumerate(shares):
        reports = []
        for stage, waited in enumerate((0.3 * share, 0.0)):
            times = tuple(waited if kind == WAIT_STEADY else 0.0 for kind in range(len(STAGE_KINDS)))
            rest = tuple(0.3 - waited if kind == OTHER else 0.0 for kind in range(len(WORKER_KINDS)))
            account = Account(began=0.3 * step, ended=0.3 * (step + 1), stages={stage: times}, worker=rest)
            reports.append(Settled(account=account, sent={}))
        accounts.add_rest(reports)
        line = accounts.line(step, 0.3 * (step + 1), None)
        spans = {float(np.mean(shares[max(0, step + 1 - n) : step + 1])) for n in range(4, 9)}
        assert any(line["bubble"][0] == pytest.approx(span, abs=1e-4) for span in spans), (step, line["bubble"])
        assert line["bubble"][1] == 0
        assert recent_bubble(line) == line["bubble"][0] / 2


def test_a_line_is_put_together_when_it_is_read_and_has_the_totals_of_its_step() -> None:
    """Most lines of small steps are never read. Those of later steps do not change it."""
    rows = [row for row in _train(digits_job(stages=2)) if isinstance(row, TrainedStep)]
    accounts, again = Accounts((0, 1)), Accounts((0, 1))
    expected, later = list[dict[str, object]](), list[AccountsLine]()
    for row in rows:
        accounts.add(row.reports)
        again.add(row.reports)
        expected.append(accounts.line(row.step, 0.4 * row.step, None))
        later.append(again.snapshot(row.step, 0.4 * row.step, None))
    assert [line.as_dict() for line in later] == expected
    assert later[0].as_dict() is later[0].as_dict()


def test_lines_are_cumulative_and_their_differences_are_the_steps() -> None:
    rows = [row for row in _train(digits_job(stages=2)) if isinstance(row, TrainedStep)]
    for before, row in pairwise(rows):
        a, b = before.accounts, row.accounts
        assert a is not None
        assert b is not None
        assert b["step"] == a["step"] + 1
        assert b["ended"] >= a["ended"]
        for stage in range(2):
            step_us = [y - x for x, y in zip(a["stage_us"][stage], b["stage_us"][stage], strict=True)]
            exact = row.reports[stage].account.stages[stage]
            assert step_us == pytest.approx([1e6 * seconds for seconds in exact], abs=2)
        assert b["wall_us"] == [sum(b["stage_us"][w]) + sum(b["worker_us"][w]) for w in range(2)]
        walls = [step_seconds(report.account) for report in row.reports]
        waits = [sum(row.reports[s].account.stages[s][kind] for kind in BUBBLE_KINDS) for s in range(2)]
        assert row.bubble == pytest.approx(sum(wait / wall for wait, wall in zip(waits, walls, strict=True)) / 2)
    named = as_seconds(rows[-1].accounts or {})
    assert list(named["stages"][0]) == list(STAGE_KINDS)
    assert named["stages"][1]["forward"] == (rows[-1].accounts or {})["stage_us"][1][0] / 1e6


def test_every_array_between_workers_is_counted() -> None:
    spec = digits_job(stages=2, partition=[2, 3])
    rows = [row for row in _train(spec) if isinstance(row, TrainedStep)]
    last = rows[-1].accounts
    assert last is not None
    width, item = 32, 4
    micro_batches = sum(min(8, row.samples) for row in rows)
    n_bytes = sum(row.samples for row in rows) * width * item
    held_out = len(
        load_data(spec).validation
    )  # evaluated once between two steps; each chunk is answered with one number
    chunks = -(-held_out // spec.training.evaluate_batch_size)
    assert last["links"] == [
        [0, 1, micro_batches + chunks, n_bytes + held_out * width * item],
        [1, 0, micro_batches + chunks, n_bytes + chunks * item],
    ]


def test_the_last_picture_is_of_a_step_that_the_prediction_is_for() -> None:
    rows = [
        row for row in _train(digits_job(stages=2).replace(training__batch_size=205)) if isinstance(row, TrainedStep)
    ]
    assert rows[-1].samples < 8, "the last batch has fewer rows than micro-batches"
    assert rows[-1].bubble_predicted is None
    assert not rows[-1].reports[0].timeline
    assert rows[-2].bubble_predicted is not None
    assert rows[-2].reports[0].timeline


def test_traced_steps_have_every_action_and_what_memory_holds() -> None:
    rows = [row for row in _train(digits_job(stages=2), trace_steps=3) if isinstance(row, TrainedStep)]
    traced = [row.step for row in rows if row.reports[0].timeline]
    assert traced[:3] == [1, 2, 3]
    assert rows[-1].step in traced, "the last whole step is always sampled"
    for row in rows[:3]:
        for w, report in enumerate(row.reports):
            assert sorted(str(action) for action, _, _ in report.timeline) == sorted(
                f"{w}{kind}{j}" for kind in "FIW" for j in range(8)
            )
            assert all(a <= b for _, a, b in report.timeline)
            assert all(end <= start for (_, _, end), (_, start, _) in pairwise(report.timeline))
            assert report.memory is not None
            weights, gradients, optimizer = report.memory.held[w]
            assert weights == gradients == optimizer > 0
            assert report.memory.peak_resident > weights
