"""Accounts of real workers, threads here: no time is missing, none is counted twice, and files say the same."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest

from cluster.sources import load_data
from coordinator.accounts import as_seconds, step_seconds
from coordinator.blueprint import make_blueprint
from coordinator.job import JobSpec
from coordinator.local import LocalWorkers
from coordinator.rows import EvalRow, Row, StepRow
from coordinator.trainer import Trainer
from stages.ledger import BUBBLE_KINDS, EVALUATION, STAGE_KINDS
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
    steps = [row for row in rows if isinstance(row, StepRow)]
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


def test_lines_are_cumulative_and_their_differences_are_the_steps() -> None:
    rows = [row for row in _train(digits_job(stages=2)) if isinstance(row, StepRow)]
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
            wall = step_seconds(row.reports[stage].account)
            assert b["bubble"][stage] == pytest.approx(sum(exact[kind] for kind in BUBBLE_KINDS) / wall, abs=1e-4)
        assert row.bubble == pytest.approx(sum(b["bubble"]) / 2, abs=1e-4)
        assert b["wall_us"] == [sum(b["stage_us"][w]) + sum(b["worker_us"][w]) for w in range(2)]
    named = as_seconds(rows[-1].accounts or {})
    assert list(named["stages"][0]) == list(STAGE_KINDS)
    assert named["stages"][1]["forward"] == (rows[-1].accounts or {})["stage_us"][1][0] / 1e6


def test_every_array_between_workers_is_counted() -> None:
    spec = digits_job(stages=2, partition=[2, 3])
    rows = [row for row in _train(spec) if isinstance(row, StepRow)]
    last = rows[-1].accounts
    assert last is not None
    width, item = 32, 4
    micro_batches = sum(min(8, row.samples) for row in rows)
    n_bytes = sum(row.samples for row in rows) * width * item
    held_out = len(load_data(spec).validation)  # evaluated once between two steps; each chunk is answered by a number
    chunks = -(-held_out // spec.training.evaluate_batch_size)
    assert last["links"] == [
        [0, 1, micro_batches + chunks, n_bytes + held_out * width * item],
        [1, 0, micro_batches + chunks, n_bytes + chunks * item],
    ]


def test_traced_steps_have_every_action_and_what_memory_holds() -> None:
    rows = [row for row in _train(digits_job(stages=2), trace_steps=3) if isinstance(row, StepRow)]
    traced = [row.step for row in rows if row.reports[0].timeline]
    assert traced[:3] == [0, 1, 2]
    assert rows[-1].step in traced, "the last step is always sampled"
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
