"""The layout of a job for the room in a cluster, and when it changes: laws of the decisions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.job.schedule_names import SCHEDULES
from coordinator.job.sections import PipelineSection
from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.layout import PipelineLayout, Room, best, lay_out, layouts, may_change, workers_with_room
from coordinator.train.growth import grows
from stages.errors import InvalidJob
from tests.jobs import digits_job

_stages = st.one_of(st.just("auto"), st.integers(1, 12))
_pipelines = st.builds(
    lambda stages, workers, schedule: PipelineSection.model_validate(
        {"stages": stages, "schedule": schedule, "workers": workers}
    ),
    _stages,
    st.one_of(st.none(), st.integers(1, 6)),
    st.sampled_from(SCHEDULES),
)


def job(**pipeline: object) -> JobSpec:
    document = digits_job().document()
    document["pipeline"] = pipeline
    return parse_job(document)


@given(st.lists(st.builds(Room, cpus=st.integers(0, 9), memory=st.integers(0, 40)), max_size=5), st.integers(1, 4))
def test_workers_with_room_fill_no_node_beyond_its_cpus_or_its_memory(nodes: list[Room], cpus: int) -> None:
    each = [workers_with_room([node], cpus, 7) for node in nodes]
    assert workers_with_room(nodes, cpus, 7) == sum(each)
    for node, n in zip(nodes, each, strict=True):
        assert n * cpus <= node.cpus
        assert n * 7 <= node.memory
        assert (n + 1) * cpus > node.cpus or (n + 1) * 7 > node.memory


@given(_pipelines, st.integers(1, 20), st.integers(0, 20))
def test_a_layout_has_room_and_keeps_every_number_that_the_job_gives(
    pipeline: PipelineSection, n_parts: int, room: int
) -> None:
    found = layouts(pipeline, n_parts, room)
    workers = [layout.workers for layout in found]
    assert workers == sorted(set(workers), reverse=True)
    for layout in found:
        assert 1 <= layout.workers <= room
        assert pipeline.stages in ("auto", layout.stages)
        assert pipeline.workers in (None, layout.workers)
        if pipeline.stages == "auto":
            assert layout.workers <= layout.stages <= n_parts
    if may_change(pipeline) and room:
        assert workers[-1] == 1, "one worker can hold any job"
    if not may_change(pipeline):
        assert len(found) <= 1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_plan_of_an_auto_job_has_the_shortest_predicted_step_and_no_worker_too_many(schedule: str) -> None:
    spec = job(stages="auto", schedule=schedule)
    for room in range(1, 8):
        found = lay_out(spec, 100, room)
        assert found.n_workers <= room
        assert found.program.name == schedule
    few, many = lay_out(spec, 100, 4), lay_out(spec, 100, 50)
    n_weighty = 3  # layers of products: a stage of a ReLU alone would not make the step shorter
    assert few.n_workers <= many.n_workers <= n_weighty + 1


def test_fewer_workers_share_the_stages_of_a_job_that_gives_their_number() -> None:
    spec = job(stages=3)
    assert lay_out(spec, 100, 1).n_workers == 3, "it begins with a worker for each"
    shared = best(spec, 100, 2)
    assert shared is not None
    assert (len(shared.bounds) - 1, shared.n_workers) == (3, 2)
    assert best(spec, 100, 0) is None
    assert best(job(stages=3, workers=3), 100, 2) is None


def test_a_layout_whose_workers_have_too_little_memory_is_none() -> None:
    document = job(stages=3).document()
    document["resources"]["memory_per_worker"] = "1KiB"
    assert best(parse_job(document), 100, 2) is None


@pytest.mark.parametrize(
    ("pipeline", "problem"),
    [
        ({"stages": "most"}, "pipeline.stages: got 'most', must be a whole number, at least 1, or auto"),
        ({"stages": "auto", "partition": [2, 3]}, "pipeline.partition: got [2, 3], but pipeline.stages is auto"),
        ({"stages": "auto", "recompute": [0]}, "pipeline.recompute: got [0], but pipeline.stages is auto"),
        ({"stages": "auto", "schedule": "a.csv"}, "pipeline.stages: got 'auto', must be the number of stages in a.csv"),
        ({"stages": "auto", "workers": 99}, "pipeline.workers: got 99, must be at most 5"),
    ],
)
def test_entries_that_need_a_number_of_stages_are_refused_with_auto(pipeline: dict[str, object], problem: str) -> None:
    with pytest.raises(InvalidJob) as refused:
        job(**pipeline)
    (line,) = refused.value.problems
    assert line.startswith(problem)


def test_a_job_keeps_auto_in_its_document() -> None:
    spec = job(stages="auto")
    assert spec.document()["pipeline"]["stages"] == "auto"
    assert parse_job(spec.document()) == spec
    assert layouts(spec.pipeline, 5, 3)[0] == PipelineLayout(3, 3)


times = st.floats(0, 1e5)


@given(st.lists(times, min_size=1, max_size=8).map(sorted), times, st.integers(1, 9), st.integers(1, 9), times)
def test_a_run_grows_only_into_room_that_stays_and_not_too_often(
    begun: list[float], waited: float, workers: int, possible: int, since: float
) -> None:
    now = begun[-1] + waited
    wanted = grows(now, workers=workers, possible=possible, possible_since=since, layouts=begun, after_s=60.0)
    if wanted:
        assert possible > workers
        assert now - since >= 10
        assert waited >= 60
        recent = sum(now - one < 3600 for one in begun[1:])
        assert waited >= min(3600, 60 * 2**recent)


def test_a_run_that_lost_a_node_grows_a_minute_after_the_first_and_two_after_the_second_change() -> None:
    def soonest(*layouts: float) -> float:
        seconds = (layouts[-1] + after for after in range(0, 4000, 5))
        return next(
            now - layouts[-1]
            for now in seconds
            if grows(now, workers=2, possible=3, possible_since=0.0, layouts=layouts, after_s=60.0)
        )

    assert [soonest(0.0), soonest(0.0, 100.0), soonest(0.0, 100.0, 300.0)] == [60, 120, 240]
    assert soonest(0.0, 10_000.0, 20_000.0) == 120, "only those of the last hour count"
