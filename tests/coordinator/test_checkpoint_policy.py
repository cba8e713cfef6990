"""When a checkpoint is saved and which are kept, by numbers alone; and what may change when a run goes on."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.checkpoints.policy import (
    FIRST_INTERVAL_S,
    LEAST_INTERVAL_S,
    When,
    interval_s,
    is_due,
    to_delete,
)
from coordinator.checkpoints.policy import KeptCheckpoint as Kept
from coordinator.job.checkpoint_section import CheckpointSection
from coordinator.job.resuming import AUTO_REFUSED, changes_refused
from coordinator.job.spec import parse_job
from stages.errors import InvalidJob
from tests.jobs import digits_job


def test_steps_are_counted_and_seconds_are_measured() -> None:
    assert [s for s in range(1, 13) if is_due(When(steps=5), s, since_s=1e9, stall_s=None)] == [5, 10]
    assert not is_due(When(seconds=10), 7, since_s=9.9, stall_s=100.0)
    assert is_due(When(seconds=10), 7, since_s=10.0, stall_s=None)


def test_a_stall_budget_makes_long_stalls_rare() -> None:
    budget = When(stall_budget=0.035)
    assert interval_s(budget, None) == FIRST_INTERVAL_S
    assert interval_s(budget, 0.001) == LEAST_INTERVAL_S
    assert interval_s(budget, 7.0) == pytest.approx(200.0)
    assert not is_due(budget, 3, since_s=199.0, stall_s=7.0)
    assert is_due(budget, 3, since_s=201.0, stall_s=7.0)


def test_the_newest_are_kept_by_their_numbers_not_as_texts() -> None:
    """transformers#27138: the wrong checkpoints were deleted, because step 10 comes before step 9 as a text."""
    kept = [Kept(step) for step in (8, 9, 10, 11, 100)]
    assert sorted(to_delete(kept, keep=3, keep_every=None, best=None)) == [8, 9]


def test_multiples_and_the_best_stay() -> None:
    kept = [
        Kept(10, 0.5),
        Kept(20, 0.2),
        Kept(30, 0.9),
        Kept(40, None),
        Kept(50, 0.2),
    ]
    assert sorted(to_delete(kept, keep=1, keep_every=30, best="validation_loss")) == [10, 40]
    assert sorted(to_delete(kept, keep=1, keep_every=None, best="validation_accuracy")) == [10, 20, 40]


@given(
    steps=st.lists(st.integers(1, 10**9), unique=True),
    keep=st.integers(1, 5),
    every=st.none() | st.integers(1, 100),
    figures=st.lists(st.none() | st.floats(0, 1), min_size=40, max_size=40),
)
def test_the_newest_is_never_deleted_and_nothing_is_deleted_twice(
    steps: list[int], keep: int, every: int | None, figures: list[float | None]
) -> None:
    kept = [Kept(step, figures[i % 40]) for i, step in enumerate(steps)]
    gone = list(to_delete(kept, keep=keep, keep_every=every, best="validation_loss"))
    assert len(set(gone)) == len(gone)
    assert not set(gone) & set(sorted(steps)[-keep:])
    again = [one for one in kept if one.step not in gone]
    assert list(to_delete(again, keep=keep, keep_every=every, best="validation_loss")) == []


@pytest.mark.parametrize(
    ("given_", "problem"),
    [
        ({"every_steps": 0}, "checkpoint.every_steps: got 0, must be a whole number of steps, at least 1"),
        ({"every_steps": 5, "every_seconds": 3}, "checkpoint: "),
        ({"stall_budget": "350%"}, "checkpoint.stall_budget: got"),
        ({"keep": 0}, "checkpoint.keep: got 0, must be a whole number of checkpoints, at least 1"),
        ({"best": "loss"}, "checkpoint.best: got 'loss', must be validation_loss or validation_accuracy"),
        ({"evry_steps": 4}, "checkpoint.evry_steps: got 4, unknown key; did you mean every_steps?"),
    ],
)
def test_mistakes_in_the_section(given_: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        parse_job({**digits_job().document(), "checkpoint": given_})
    assert caught.value.problems[0].startswith(problem)


def test_the_section_survives_the_job_file() -> None:
    spec = parse_job({**digits_job().document(), "checkpoint": {"stall_budget": "3.5%", "keep_every": 100}})
    assert spec.checkpoint == CheckpointSection(stall_budget=0.035, keep_every=100)
    assert parse_job(spec.document()) == spec
    assert "checkpoint" not in digits_job().document()


def test_a_run_does_not_go_on_with_pipeline_auto() -> None:
    """The lines were about groups and micro-batches that the user never wrote."""
    before = digits_job().document()
    now = {**before, "pipeline": "auto"}
    assert changes_refused(before, now) == [AUTO_REFUSED]
    now["training"] = {key: value for key, value in before["training"].items() if key != "micro_batches"}
    assert changes_refused(before, now) == [AUTO_REFUSED]
    now["training"] = {**before["training"], "micro_batches": 3}
    assert [line.split(":")[0] for line in changes_refused(before, now)] == ["pipeline", "training.micro_batches"]


def test_what_may_change_when_a_run_goes_on_and_what_may_not() -> None:
    before = digits_job().document()
    now = copy.deepcopy(before)
    now["pipeline"] |= {"stages": 2, "schedule": "zb-h1", "recompute": "full"}
    now["training"] |= {"epochs": 50, "schedule": {"linear": {}}, "optimizer": {"sgd": {"learning_rate": 3}}}
    now["training"]["optimizer"]["sgd"] |= {"momentum": 0.9, "weight_decay": 0.0, "nesterov": False}
    now["name"], now["checkpoint"] = "other", {"keep": 9}
    assert changes_refused(before, now) == []
    now["seed"], now["training"]["batch_size"] = 12, 104
    now["model"]["layers"][2] = {"linear": {"units": 17, "bias": True}}
    now["training"]["optimizer"]["sgd"]["momentum"] = 0.5
    assert changes_refused(before, now) == [
        "seed: got 12, but the checkpoint has 11, and this may not change: it decides the order of the rows",
        "model.layers[2].linear.units: got 17, but the checkpoint has 16, and this may not change: the saved weights "
        "are of this model",
        "training.batch_size: got 104, but the checkpoint has 103, and this may not change: it decides which rows a "
        "step has",
        "training.optimizer.sgd.momentum: got 0.5, but the checkpoint has 0.9, and this may not change: the saved "
        "vectors belong to it; its learning_rate may change",
    ]
