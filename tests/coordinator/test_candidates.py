"""The candidates for a job's settings: which there are, their order, and memory. And `pipeline: auto`, which takes the
first."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.job.schedule_names import AUTO, SCHEDULES
from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.blueprint import Blueprint, make_blueprint
from coordinator.plan.candidate_memory import MemoryOf, those_that_fit
from coordinator.plan.candidates import (
    Candidate,
    Candidates,
    Scope,
    changes_bits,
    group_sizes,
    micro_batch_counts,
    worker_counts,
)
from coordinator.plan.choosing import chosen
from coordinator.plan.estimate import estimate
from coordinator.plan.predicted_step import estimated_times, predicted_step
from coordinator.plan.settings import (
    CHANGES_BITS,
    NAMES,
    PipelineSettings,
    changed_entries,
    settings_of,
    trial_job,
    with_settings,
)
from coordinator.schedules import build
from coordinator.schedules.csv_format import write_csv
from coordinator.timing.accounts import Bubble
from coordinator.timing.machine_times import LinkTimes
from coordinator.timing.step_time import CAUSES, PredictedStep
from coordinator.train.local import LocalWorkers
from coordinator.train.parity import compare, train_pipeline
from coordinator.train.reference import train_reference
from stages.data import Dataset
from stages.errors import InvalidJob, NotEnoughResources
from tests.jobs import digits_job

OWN = PipelineSettings(stages=2, workers=2, schedule="1f1b", micro_batches=8)
ROWS = 1030
RNG = np.random.default_rng(0)
DATA = Dataset(x=RNG.standard_normal((206, 64)).astype("f4"), y=RNG.integers(0, 10, 206))


def job(pipeline: object = None, memory: int | None = None, **training: Any) -> JobSpec:
    document = digits_job().document()
    document["pipeline"] = {"stages": 2} if pipeline is None else pipeline
    document["training"].update(training)
    if memory is not None:
        document["resources"]["memory_per_worker"] = memory
    if training.get("micro_batches", 0) is None:
        del document["training"]["micro_batches"]
    return parse_job(document)


def by_settings(blueprint: Blueprint) -> PredictedStep:
    """A prediction that prefers many workers, 16 micro-batches and groups of 2."""
    spec = blueprint.spec
    settings = settings_of(spec, n_workers=blueprint.n_workers)
    seconds = (
        10 / settings.workers
        + abs(settings.micro_batches - 16) / 16
        + abs(settings.weight_grad_group - 2) / 10
        + SCHEDULES.index(settings.schedule) / 100
    )
    return PredictedStep(seconds, (), Bubble(0.0, ()), lambda: (dict.fromkeys(CAUSES, 0.0),))


def candidates(spec: JobSpec, workers: int = 2, *kept: str, own: PipelineSettings = OWN) -> Candidates:
    return Candidates(spec, ROWS, Scope(most_workers=workers, own=own, kept=frozenset(kept)), by_settings)


def test_the_best_prediction_comes_first_also_if_only_a_later_round_tries_it() -> None:
    best = candidates(job(), 3).ranked()[0].settings
    assert (best.workers, best.micro_batches, best.weight_grad_group, best.schedule) == (3, 16, 2, "gpipe")
    seconds = [one.predicted.seconds for one in candidates(job(), 3).ranked()]
    assert seconds == sorted(seconds)


def test_every_schedule_and_the_job_s_own_settings_are_tried() -> None:
    own = replace(OWN, micro_batches=7, weight_grad_group=3)
    found = {one.settings for one in candidates(job(), own=own).ranked()}
    assert own in found
    assert {one.schedule for one in found} == set(SCHEDULES)
    assert {one.workers for one in found} == {1, 2}


def test_a_searched_schedule_is_tried_for_the_times_of_the_prediction() -> None:
    """Links are so slow that no built-in schedule fills the gaps."""
    spec = job(batch_size=400, micro_batches=4)
    times = replace(estimated_times(spec, cores=3), local=LinkTimes(latency_s=2e-4))
    own = replace(OWN, micro_batches=4)
    kept = frozenset({"micro_batches", "weight_grad_group", "stages"})

    def ranked(kept: frozenset[str]) -> list[Candidate]:
        scope = Scope(most_workers=2, own=own, kept=kept)
        return Candidates(spec, 400, scope, partial(predicted_step, times=times), times=times).ranked()

    found = [one for one in ranked(kept) if one.settings.schedule == AUTO]
    assert 1 <= len(found) <= 2
    for one in found:
        searched = one.blueprint.searched
        assert searched is not None
        assert searched.link is times.local
        others = [
            other.predicted.seconds
            for other in ranked(kept)
            if other.settings.schedule in SCHEDULES and other.settings.workers == one.settings.workers
        ]
        assert one.predicted.seconds < min(others)
    assert {one.settings.schedule for one in ranked(kept | {"schedule"})} == {OWN.schedule}


@pytest.mark.parametrize("schedule", ["gpipe", "zb-h1"])
def test_schedules_of_one_stage_are_one_choice_with_the_job_s_own_name(schedule: str) -> None:
    own = PipelineSettings(stages=1, workers=1, schedule=schedule, micro_batches=8)
    ranked = candidates(job({"stages": 1, "schedule": schedule}), own=own).ranked()
    one_stage = [one.settings for one in ranked if one.settings.stages == 1]
    assert own in one_stage
    assert {one.schedule for one in one_stage} == {schedule}
    assert len({str(one) for one in one_stage}) == len(one_stage)
    spec = with_settings(job(), own)
    assert all("pipeline.schedule" not in changed_entries(spec, one) for one in one_stage)


def test_own_settings_of_one_stage_stand_for_all_schedules() -> None:
    found = candidates(job(), own=replace(OWN, stages=1, workers=1, schedule="zb-h1"))
    own = found.add(found.own)
    assert own is not None
    assert found.add(replace(found.own, schedule="gpipe")) is own


def test_within_a_limit_one_stage_has_the_schedule_that_keeps_least_too() -> None:
    own = PipelineSettings(stages=1, workers=1, schedule="gpipe", micro_batches=8)
    ranked = candidates(job({"stages": 1, "schedule": "gpipe"}, memory=2**40), own=own).ranked()
    texts = [str(one.settings) for one in ranked if one.settings.stages == 1 and one.settings.micro_batches == 8]
    assert {"1 worker, gpipe, 8 micro-batches", "1 worker, 8 micro-batches"} <= set(texts)
    assert len(set(texts)) == len(texts)


def test_a_schedule_that_needs_two_stages_a_worker_gives_way_if_there_is_one_stage() -> None:
    own = PipelineSettings(stages=4, workers=2, schedule="zbv", micro_batches=8)
    ranked = candidates(job({"stages": 4, "schedule": "zbv"}), own=own).ranked()
    assert {one.settings.schedule for one in ranked if one.settings.stages == 1} == {"1f1b"}


@pytest.mark.parametrize("kept", NAMES)
def test_a_setting_that_is_kept_is_the_job_s_in_every_candidate(kept: str) -> None:
    own = PipelineSettings(
        stages=3,
        workers=2,
        schedule="zb-h1",
        micro_batches=7,
        weight_grad_group=3,
        recompute="full",
        partition=(1, 2, 2),
    )
    ranked = candidates(job(), 2, kept, *(["stages"] if kept == "partition" else []), own=own).ranked()
    assert len(ranked) > 3
    assert {getattr(one.settings, kept) for one in ranked} == {getattr(own, kept)}


@given(st.integers(1, 300), st.integers(1, 300))
def test_micro_batches_to_try_divide_the_batch_or_are_powers_of_two(batch: int, own: int) -> None:
    found = micro_batch_counts(batch, min(own, batch))
    assert found == sorted(set(found))
    assert {1, min(own, batch)} <= set(found)
    assert all(m <= batch for m in found)
    assert len(found) < 30


@given(st.integers(1, 5000))
def test_workers_and_groups_to_try_are_few_and_have_the_most(n: int) -> None:
    for found in (worker_counts(n), group_sizes(n)):
        assert found[0] == 1
        assert found[-1] == n
        assert len(found) <= 24


def test_settings_are_told_as_entries_of_the_job_file_and_give_the_same_job_in_both_ways() -> None:
    settings = PipelineSettings(
        stages=4, workers=2, schedule="zbv", micro_batches=16, weight_grad_group=4, partition=(1, 2, 1, 1)
    )
    spec = job()
    assert with_settings(spec, settings).document() == trial_job(spec, settings).document()
    assert settings_of(with_settings(spec, settings), n_workers=2) == settings
    assert changed_entries(with_settings(spec, settings), settings) == {}
    assert changed_entries(spec, settings) == {
        "pipeline.stages": 4,
        "pipeline.schedule": "zbv",
        "pipeline.partition": [1, 2, 1, 1],
        "pipeline.weight_grad_group": 4,
        "training.micro_batches": 16,
    }, "zbv has two stages a worker, so the number of workers follows"
    assert str(settings) == (
        "2 workers, 4 stages, zbv, 16 micro-batches, weight gradients in groups of 4, cut [1, 2, 1, 1]"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schedule": "zb-h1", "stages": 4, "workers": 4, "recompute": "full"}, False),
        ({"micro_batches": 4}, True),
        ({"weight_grad_group": 2}, True),
    ],
)
def test_which_settings_change_bits_is_what_training_shows(changes: dict[str, Any], expected: bool) -> None:
    other = replace(OWN, **changes)
    assert changes_bits(other, OWN) is expected
    rows, steps = len(DATA), 4
    weights = []
    for settings in (OWN, other):
        blueprint = make_blueprint(with_settings(job(), settings), rows)
        with contextlib.closing(LocalWorkers(blueprint, train=DATA)) as running:
            weights.append(train_pipeline(blueprint, running, DATA, steps))
    assert compare(*weights).equal is not expected
    assert {path.split(".")[1] for path in CHANGES_BITS} >= set(other.differences(OWN)) or not expected


# memory ---------------------------------------------------------------------------------------------------------------


def test_without_a_limit_nothing_is_refused_and_memory_is_counted_for_the_best() -> None:
    fitting, refused = those_that_fit(candidates(job()), 5, MemoryOf(data_bytes=1000, validation_rows=10))
    ranked = candidates(job()).ranked()
    assert [one.settings for one in fitting[:5]] == [one.settings for one in ranked[:5]]
    pairs = [(one.settings.workers, one.settings.micro_batches) for one in fitting]
    assert set(pairs) == {(one.settings.workers, one.settings.micro_batches) for one in ranked}, "each is compared"
    assert all(pairs.count(pair) <= 2 for pair in pairs if pair != pairs[0])
    assert refused == []
    assert all(one.memory is not None and one.memory > 1000 for one in fitting)


def test_within_a_limit_what_needs_more_is_refused_or_computes_again() -> None:
    memory = [
        one.memory or 0
        for one in those_that_fit(candidates(job(), 2, "micro_batches"), 40, MemoryOf(data_bytes=0, validation_rows=0))[
            0
        ]
    ]
    limit = sorted(memory)[len(memory) // 2]
    fitting, refused = those_that_fit(
        candidates(job(memory=limit), 2, "micro_batches"), 10, MemoryOf(data_bytes=0, validation_rows=0)
    )
    assert refused
    assert all(one.refusal for one in refused)
    assert all(one.memory is not None and one.memory <= limit for one in fitting)
    for one in fitting:
        again = make_blueprint(with_settings(job(memory=limit), one.settings), ROWS)
        assert estimate(again, data_bytes=0, validation_rows=0).refusals == ()


def test_a_limit_that_nothing_meets_is_one_line_with_the_least_need_which_is_enough() -> None:
    with pytest.raises(NotEnoughResources) as caught:
        those_that_fit(
            candidates(job(memory=1000), 2, "micro_batches", "weight_grad_group"),
            5,
            MemoryOf(data_bytes=0, validation_rows=0),
        )
    (line,) = str(caught.value).splitlines()
    start = "resources.memory_per_worker: 1000 B is too little for all settings; the least that one needs is "
    assert line.startswith(start)
    need = re.match(r"([0-9.]+ KiB) a worker: \d", line.removeprefix(start))
    assert need is not None
    spec = job(memory=1).replace(resources__memory_per_worker=need[1])
    fitting, _ = those_that_fit(
        candidates(spec, 2, "micro_batches", "weight_grad_group"), 1, MemoryOf(data_bytes=0, validation_rows=0)
    )
    assert fitting


def test_workers_that_need_more_than_the_machine_has_are_refused() -> None:
    def memory_of(free: int) -> MemoryOf:
        return MemoryOf(data_bytes=0, validation_rows=0, free=free)

    (best, *_), _ = those_that_fit(candidates(job(), 2, "micro_batches"), 3, memory_of(2**60))
    for_one_worker = 250 * 2**20
    fitting, refused = those_that_fit(candidates(job(), 2, "micro_batches"), 3, memory_of(for_one_worker))
    assert {one.settings.workers for one in fitting} == {1}
    assert best.settings in [one.settings for one in refused]
    assert all("this machine has 250 MiB free" in (one.refusal or "") for one in refused)
    with pytest.raises(NotEnoughResources, match=r"^this machine has too little memory for all settings: 1 worker"):
        those_that_fit(candidates(job(), 2, "micro_batches"), 3, memory_of(2**20))


def test_settings_that_must_stay_and_do_not_go_together_are_one_line() -> None:
    own = replace(OWN, stages=4, workers=4)
    with pytest.raises(InvalidJob, match="no settings are left to try") as caught:
        those_that_fit(candidates(job(), 2, "workers", own=own), 3, MemoryOf(data_bytes=0, validation_rows=0))
    assert len(caught.value.problems) == 1


# pipeline: auto -------------------------------------------------------------------------------------------------------


def test_auto_becomes_explicit_settings_that_are_the_same_each_time() -> None:
    spec, (line,) = chosen(job("auto"), ROWS, 2)
    again, _ = chosen(job("auto"), ROWS, 2)
    assert spec == again
    assert not spec.pipeline.is_auto
    blueprint = make_blueprint(spec, ROWS)
    settings = settings_of(spec, n_workers=blueprint.n_workers)
    assert line.startswith(f"pipeline auto: {settings}: the shortest predicted step of ")
    assert line.endswith(" choices, from counted times")
    assert parse_job(spec.document()) == spec
    assert "auto" not in (spec.document()["pipeline"], spec.pipeline.stages, spec.pipeline.schedule)


def test_auto_keeps_micro_batches_that_the_job_gives() -> None:
    for given_ in (1, 7):
        spec, _ = chosen(job("auto", micro_batches=given_), ROWS, 2)
        assert spec.training.micro_batches == given_


def test_auto_stays_in_the_document_until_it_is_chosen() -> None:
    for micro_batches in (None, 4):
        spec = job("auto", micro_batches=micro_batches)
        document = spec.document()
        assert document["pipeline"] == "auto"
        assert ("micro_batches" in document["training"]) is (micro_batches is not None)
        assert parse_job(document) == spec
        assert chosen(parse_job(document), ROWS, 2) == chosen(spec, ROWS, 2)


def test_another_job_is_left_as_it_is() -> None:
    spec = job()
    assert chosen(spec, ROWS, 2) == (spec, ())


def test_auto_takes_no_more_workers_than_there_is_room_for() -> None:
    for room in (0, 1, 2, 3):
        spec, _ = chosen(job("auto"), ROWS, room)
        assert make_blueprint(spec, ROWS).n_workers <= max(1, room)


def test_auto_fits_into_the_memory_of_a_worker() -> None:
    spec, _ = chosen(job("auto"), ROWS, 2)
    free = estimate(make_blueprint(spec, ROWS), data_bytes=0, validation_rows=0)
    limit = max(worker.total for worker in free.workers) - 1
    tight, _ = chosen(job("auto", memory=limit), ROWS, 2)
    assert estimate(make_blueprint(tight, ROWS), data_bytes=0, validation_rows=0).refusals == ()
    with pytest.raises(NotEnoughResources, match="the least that one needs is"):
        chosen(job("auto", memory=1), ROWS, 2)


def test_what_auto_chooses_trains_the_weights_of_one_process() -> None:
    spec, _ = chosen(job("auto", batch_size=32), len(DATA), 2)
    blueprint = make_blueprint(spec, len(DATA))
    with contextlib.closing(LocalWorkers(blueprint, train=DATA)) as running:
        found = train_pipeline(blueprint, running, DATA, 5)
    assert compare(found, train_reference(spec, DATA, 5)).equal


@pytest.mark.parametrize("wrong", ["best", "Auto", 3, ["auto"]])
def test_another_word_for_auto_is_a_mistake(wrong: object) -> None:
    with pytest.raises(InvalidJob) as caught:
        job(wrong)
    (line,) = caught.value.problems
    assert line.startswith("pipeline: got ")
    assert line.endswith(
        "must be a section with stages, workers, schedule, partition, weight_grad_group, recompute, or auto"
    )


@pytest.mark.parametrize(("schedule", "stages", "stays"), [("auto", 2, True), ("auto", 1, True), ("zbv", 2, False)])
def test_one_stage_needs_no_other_schedule(schedule: str, stages: int, *, stays: bool) -> None:
    """A job with `schedule: auto` was told to take 1f1b."""
    own = PipelineSettings(stages=stages, workers=stages, schedule=schedule, micro_batches=8)
    spec = job({"stages": stages, "workers": stages, "schedule": schedule})
    kept = frozenset({"micro_batches", "weight_grad_group"})
    scope = Scope(most_workers=1, own=own, kept=kept)
    ranked = Candidates(spec, ROWS, scope, partial(predicted_step, times=estimated_times(spec, cores=1))).ranked()
    (alone,) = [one.settings for one in ranked if one.settings.stages == 1]
    assert ("pipeline.schedule" not in changed_entries(spec, alone)) == stays


def test_one_stage_keeps_a_schedule_file_of_one_stage(tmp_path: Path) -> None:
    file = tmp_path / "one.csv"
    file.write_text(write_csv(build("gpipe", n_stages=1, n_micro_batches=8)))
    own = PipelineSettings(stages=1, workers=1, schedule=str(file), micro_batches=8)
    spec = job({"stages": 1, "schedule": str(file)})
    scope = Scope(most_workers=1, own=own, kept=frozenset({"weight_grad_group"}))
    ranked = Candidates(spec, ROWS, scope, partial(predicted_step, times=estimated_times(spec, cores=1))).ranked()
    schedules = {one.settings.micro_batches: one.settings.schedule for one in ranked}
    assert schedules[8] == schedules[4] == str(file)
    assert schedules[16] == "1f1b", "the file has fewer micro-batches"
