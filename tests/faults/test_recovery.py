"""A run that loses a worker replaces it, and ends with bitwise the weights and the rows of an undisturbed run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.actors.spare import Spare
from cluster.checkpoints.folder import CheckpointFolder
from cluster.run import connecting
from cluster.run.run_dir import RunDir
from cluster.run.training import Run, Where
from coordinator.job.spec import JobSpec, parse_job
from coordinator.train.story import CAUGHT_UP, LOST, RECOVERED, STORY, story_text
from stages.errors import StageFailed
from stages.ledger import WORKER_KINDS
from stages.orders import Fault, Faults
from tests.cluster.test_resume import LOCAL, gpt, results
from tests.cluster.test_tracked_going_on import in_tensorboard, near, rows_of
from tests.faults.test_worker_faults import wait_until_gone
from tests.jobs import digits_job

pytestmark = pytest.mark.timeout(400)


def job(checkpoint: int | None, **entries: Any) -> JobSpec:
    document = digits_job(stages=3).document()
    if checkpoint is not None:
        document["checkpoint"] = {"every_steps": checkpoint}
    return parse_job({**document, **entries})


def train(path: Path, spec: JobSpec, where: Where, faults: Faults | None = None) -> list[str]:
    """Train; return what was warned of."""
    warned: list[str] = []
    run = Run.prepare(spec, where, faults=faults)
    run_dir = RunDir.create(path, run.spec)
    run.warn = warned.append
    try:
        for _ in run.rows(run_dir):
            pass
    finally:
        run_dir.close()
    return warned


def events(path: Path, *kinds: str) -> list[Mapping[str, Any]]:
    found = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    return [event for event in found if event["event"] in kinds]


@pytest.fixture
def on_ray(ray: Any, monkeypatch: pytest.MonkeyPatch) -> Where:
    """The Ray of the session, as `train` uses its own."""
    monkeypatch.setattr(connecting, "ray_session", lambda *_, **__: contextlib.nullcontext(ray))
    return Where()


def text_job(folder: Path, **training: Any) -> JobSpec:
    """Tied weights, dropout, evaluations within epochs, rows of three steps; three stages."""
    document = gpt(folder, **training).document()
    document["pipeline"] |= {"stages": 3}
    document["checkpoint"] = {"every_steps": 6}
    document["resources"] = {"hang_timeout": 20.0}
    return parse_job(document)


def loses(tmp_path: Path, where: Where, spec: JobSpec, faults: Faults) -> list[Mapping[str, Any]]:
    """Train with the faults, and compare the results with those of a run without. Return the events of the story."""
    train(tmp_path / "whole", spec, LOCAL)
    warned = train(tmp_path / "run", spec, where, faults)
    story = events(tmp_path / "run", *STORY)
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    told = [text for text in warned if "warning" not in text and not text.startswith("chaos: ")]
    assert told == [story_text(event["event"], event) for event in story]
    assert all(event["identical"] for event in story if event["event"] == CAUGHT_UP)
    accounts = [json.loads(line) for line in (tmp_path / "run" / "accounts.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in accounts[:-1]]  # the last line closes the account of the last step
    assert steps == sorted(set(steps))
    recovery = WORKER_KINDS.index("recovery")
    walls, back = accounts[-1]["wall_us"], [row[recovery] for row in accounts[-1]["worker_us"]]
    if any(event["steps_lost"] < event["from_step"] + event["steps_lost"] for event in story if "steps_lost" in event):
        assert min(back) > 0, "each worker's time has the recovery"
    assert all(sum(row) <= wall for row, wall in zip(accounts[-1]["worker_us"], walls, strict=True))
    return story


def test_a_killed_worker_is_replaced_and_leaves_no_trace(tmp_path: Path, on_ray: Where, ray: Any) -> None:
    """Nor at a tracker: each point is there once, and none is missing."""
    spec = job(5, tracking={"tensorboard": True})
    story = loses(tmp_path, on_ray, spec, {1: Fault(step=8, action="1B3", what="kill")})
    assert [event["event"] for event in story][:2] == [LOST, RECOVERED]
    lost, recovered = story[:2]
    assert (lost["worker"], lost["loss"]) == (1, "process lost")
    assert lost["cause"].startswith("worker 1 (stage 1; process ")
    assert [at["worker"] for at in recovered["workers"]] == [1], "the others stay"
    (started,) = events(tmp_path / "run", "started")
    pids = [at["pid"] for at in (*started["workers"], *recovered["workers"])]
    assert len(set(pids)) == 4
    wait_until_gone(pids)
    groups = ray.util.placement_group_table().values()
    assert {group["state"] for group in groups} <= {"REMOVED"}
    assert in_tensorboard(tmp_path / "run" / "tensorboard") == near(rows_of(tmp_path / "run"))


@pytest.mark.parametrize(
    ("what", "action", "schedule"),
    [
        pytest.param("kill", "1F1", "gpipe", marks=pytest.mark.slow),  # tests/faults/test_chaos.py has it in 1f1b
        pytest.param("kill", "1I2", "zb-h1", marks=pytest.mark.slow),  # the next one is in the same kind of schedule
        ("raise", "2W1", "zb-h2"),
        pytest.param("raise", "update", "1f1b", marks=pytest.mark.slow),  # test_chaos.py has `oom` there
        pytest.param("kill", "evaluation", "1f1b", marks=pytest.mark.slow),  # test_chaos.py has `partition` there
        ("kill", "checkpoint", "zb-h1"),
    ],
)
def test_a_text_job_loses_a_worker_at_any_point(
    tmp_path: Path, on_ray: Where, what: Any, action: str, schedule: str
) -> None:
    step = {"evaluation": 14, "checkpoint": 6}.get(action, 13)
    worker = int(action[0]) if action[0].isdigit() else 1
    spec = text_job(tmp_path).replace(schedule=schedule)
    story = loses(tmp_path, on_ray, spec, {worker: Fault(step=step, action=action, what=what)})
    assert [event["event"] for event in story][:2] == [LOST, RECOVERED]
    assert story[0]["loss"] == ("exception" if what == "raise" else "process lost")


def test_with_clipping_the_run_goes_on_exactly_from_the_last_checkpoint(tmp_path: Path, on_ray: Where) -> None:
    spec = text_job(tmp_path, clip_norm=0.5)
    story = loses(tmp_path, on_ray, spec, {0: Fault(step=16, action="0I1", what="kill")})
    assert [event["event"] for event in story] == [LOST, RECOVERED, CAUGHT_UP]
    lost, recovered, caught_up = story
    assert lost["step"] == 15
    assert recovered["from_step"] in (0, 6, 12), "the newest checkpoint that was written to its end by then"
    assert recovered["steps_lost"] == 15 - recovered["from_step"]
    assert caught_up["step"] == 15


@pytest.mark.parametrize("what", [pytest.param("stop", marks=pytest.mark.slow), "block"])  # test_chaos.py stops one
def test_a_worker_that_hangs_is_found_long_before_the_hang_timeout_and_replaced(
    tmp_path: Path, on_ray: Where, what: Any
) -> None:
    spec = job(4, resources={"hang_timeout": 120.0})
    (lost, *_) = loses(tmp_path, on_ray, spec, {2: Fault(step=9, action="2F5", what=what)})
    assert (lost["worker"], lost["loss"]) == (2, "hang")
    assert 0.5 < lost["found_s"] < 60


def test_a_spare_process_takes_the_place_of_a_killed_worker(
    tmp_path: Path, on_ray: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Spare.start

    def start_and_wait(spare: Spare, addresses: Any) -> None:
        start(spare, addresses)
        spare._ray.get(spare._ready)

    monkeypatch.setattr(Spare, "start", start_and_wait)
    spec = job(5, recovery={"spare": 1})
    _, recovered, *_ = loses(tmp_path, on_ray, spec, {1: Fault(step=8, action="1B3", what="kill")})
    ((worker, pid),) = [(at["worker"], at["pid"]) for at in recovered["workers"]]
    logged = (tmp_path / "run" / "events.jsonl").read_text()
    assert worker == 1
    assert f'"pid": {pid}' in logged
    assert recovered["spare"] == [1]
    wait_until_gone([pid])


def test_without_a_checkpoint_the_run_begins_again(tmp_path: Path, on_ray: Where) -> None:
    story = loses(tmp_path, on_ray, job(None), {0: Fault(step=6, action="0F2", what="kill")})
    assert story[1]["from_step"] == 0


def test_two_lost_workers_are_both_replaced(tmp_path: Path, on_ray: Where) -> None:
    faults = {0: Fault(step=8, action="0F1", what="kill"), 2: Fault(step=8, action="2F0", what="kill")}
    story = loses(tmp_path, on_ray, job(3), faults)
    replaced = {at["worker"] for event in story if event["event"] == RECOVERED for at in event["workers"]}
    assert replaced == {0, 2}


def test_the_same_failure_again_ends_the_run_with_its_rows(tmp_path: Path, on_ray: Where) -> None:
    spec = text_job(tmp_path)
    train(tmp_path / "whole", spec, LOCAL)
    with pytest.raises(StageFailed, match=r"injected fault before 1F1 \(the same failure came again"):
        train(tmp_path / "run", spec, on_ray, {1: Fault(step=14, action="1F1", what="raise", times=2)})
    assert [event["event"] for event in events(tmp_path / "run", *STORY)][:2] == [LOST, RECOVERED]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [(row["kind"], row["step"]) for row in rows]
    assert len(set(steps)) == len(steps)
    (failed,) = events(tmp_path / "run", "failed")
    assert failed["cause"].endswith("(the same failure came again after the worker had been replaced)")


def test_a_stop_before_it_has_caught_up_leaves_rows_of_no_later_step(tmp_path: Path, on_ray: Where) -> None:
    run = Run.prepare(text_job(tmp_path, clip_norm=0.5), on_ray, faults={1: Fault(step=17, action="1F1", what="kill")})
    run_dir = RunDir.create(tmp_path / "run", run.spec)
    run.warn = lambda text: run.stop() if "replaced" in text else None
    for _ in run.rows(run_dir):
        pass
    run_dir.close()
    assert run.result is not None
    assert run.result.stopped
    assert run.result.steps in (0, 6, 12), "the newest checkpoint that was written to its end by then"
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max((row["step"] for row in rows), default=0) == run.result.steps
    assert max(CheckpointFolder(tmp_path / "run" / "checkpoints").steps(), default=0) == run.result.steps
