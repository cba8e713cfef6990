"""A run that goes on, after a resume or in a new attempt, goes on in the same run of its trackers: each point once, and
none missing."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.checkpoints.folder import CheckpointFolder
from cluster.checkpoints.layer_files import LayerFiles
from cluster.cli.progress import RunDisplay
from cluster.run.resuming import find_checkpoint
from cluster.run.run_dir import RunDir
from cluster.run.training import Run
from cluster.trackers import Trackers
from coordinator.job.spec import JobSpec, parse_job
from tests.cluster.test_mlflow import empty, mlflow_runs
from tests.cluster.test_resume import LOCAL
from tests.jobs import digits_job, pipetrain_here

__all__ = ["empty"]
STEPS = 28
Points = dict[str, dict[int, float]]


@pytest.fixture
def database(tmp_path: Path, empty: Path) -> str:
    return f"sqlite:///{shutil.copy(empty, tmp_path / 'mlflow.db')}"


def job(**tracking: object) -> JobSpec:
    """Return a job of two epochs of 14 steps, ordered one by one because of the clipping, with a checkpoint every 5."""
    document = digits_job(stages=2).document()
    training = {**document["training"], "epochs": 2, "clip_norm": 100.0}
    checkpoint = {"every_steps": 5, "keep": 100}
    return parse_job({**document, "training": training, "checkpoint": checkpoint, "tracking": tracking})


@pytest.fixture(autouse=True)
def _checkpoints_do_not_depend_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    look = LayerFiles.look
    monkeypatch.setattr(LayerFiles, "look", lambda self, *, wait: look(self, wait=True))


def _kill_the_trackers(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """Let trackers end as if their process was killed: they are not closed, and have no points after this step."""
    row = Trackers.row

    def until(self: Trackers, found: Any) -> None:
        if found.step <= after:
            row(self, found)

    monkeypatch.setattr(Trackers, "row", until)
    monkeypatch.setattr("cluster.trackers.mlflow.MLflow.close", lambda *_: None)


def begin(path: Path, spec: JobSpec, stop_at: int | None = None) -> None:
    run = Run.prepare(spec, LOCAL)
    run_dir = RunDir.create(path, run.spec)
    _perform(run, run_dir, stop_at)


def _perform(run: Run, run_dir: RunDir, stop_at: int | None) -> None:
    rows = run.rows(run_dir)
    try:
        for row in rows:
            if row.step == stop_at:
                run.stop()
    finally:
        rows.close()
        run_dir.close()


def go_on(place: Path, overrides: Sequence[str] = (), **replacements: object) -> None:
    found = find_checkpoint(place, lambda line: None)
    assert found.run is not None
    run = Run.prepare(found.spec(overrides, **replacements), LOCAL, resume=found)
    _perform(run, RunDir.resume(found.run, run.spec, found.manifest.position), None)


def rows_of(path: Path) -> Points:
    """Return the losses in the file of rows, which has each step once."""
    found: Points = {"train/loss": {}, "validation/loss": {}}
    for row in map(json.loads, (path / "metrics.jsonl").read_text().splitlines()):
        points = found["train/loss" if row["kind"] == "step" else "validation/loss"]
        assert row["step"] not in points
        points[row["step"]] = row["loss"]
    return found


def in_tensorboard(folder: Path) -> Points:
    """Return the losses as TensorBoard reads them; each step is there once."""
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="pip install 'pipetrain[tensorboard]'"
    )
    events = reader.EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    found: Points = {}
    for name in ("train/loss", "validation/loss"):
        known = events.Scalars(name) if name in events.Tags()["scalars"] else []
        scalars = [(event.step, event.value) for event in known]
        assert [step for step, _ in scalars] == sorted({step for step, _ in scalars}), "once each, in order"
        found[name] = dict(scalars)
    return found


def in_mlflow(database: str, run: str) -> Points:
    """Return the losses in a run of MLflow; each step is there once."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=database)
    found: Points = {}
    for name in ("train/loss", "validation/loss"):
        history = [(metric.step, metric.value) for metric in client.get_metric_history(run, name)]
        assert len({step for step, _ in history}) == len(history), "once each"
        found[name] = dict(sorted(history))
    return found


def near(points: Points) -> Any:
    return {name: pytest.approx(values, rel=1e-6) for name, values in points.items()}


def place_of(path: Path, step: int) -> Path:
    assert step in CheckpointFolder(path / "checkpoints").steps()
    return path / "checkpoints" / f"step-{step:08d}"


@pytest.mark.parametrize("common", [False, True], ids=["run directory", "common folder"])
def test_tensorboard_has_each_point_once_after_a_resume_from_an_earlier_step(tmp_path: Path, common: bool) -> None:
    """wandb#5632: points after a resume were dropped, or were there twice."""
    pytest.importorskip("tensorboard", reason="pip install 'pipetrain[tensorboard]'")
    spec, path = job(tensorboard=str(tmp_path / "logs") if common else True), tmp_path / "run"
    begin(path, spec, stop_at=17)
    logs = tmp_path / "logs" / "run" if common else path / "tensorboard"
    assert max(in_tensorboard(logs)["train/loss"]) >= 17
    go_on(place_of(path, 10), stages=3)
    assert in_tensorboard(logs) == near(rows_of(path))
    assert sorted(in_tensorboard(logs)["train/loss"]) == list(range(1, STEPS + 1))
    assert [entry.name for entry in logs.parent.iterdir() if entry.name.startswith("run-")] == []
    go_on(place_of(path, 5))  # again, and before the first time
    assert in_tensorboard(logs) == near(rows_of(path))
    go_on(path, ["training.epochs=3"])
    assert sorted(in_tensorboard(logs)["train/loss"]) == list(range(1, 43))


def test_what_a_killed_process_did_not_record_is_recorded_by_the_next(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was a gap between the last point that was flushed and the checkpoint."""
    pytest.importorskip("tensorboard", reason="pip install 'pipetrain[tensorboard]'")
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        _kill_the_trackers(patch, after=7)
        begin(path, job(tensorboard=True, mlflow=database), stop_at=17)
    assert max(in_tensorboard(path / "tensorboard")["train/loss"]) == 7
    (file,) = (path / "tensorboard").iterdir()
    with file.open("ab") as opened:  # an event that was cut off
        opened.write((1000).to_bytes(8, "little") + b"abcdefg")
    go_on(place_of(path, 15))
    assert in_tensorboard(path / "tensorboard") == near(rows_of(path))
    (found,) = mlflow_runs(database)
    assert in_mlflow(database, found.info.run_id) == rows_of(path)
    assert found.info.status == "FINISHED"


def test_mlflow_goes_on_in_the_same_run(tmp_path: Path, database: str) -> None:
    """wandb#5632: points after a resume were dropped, or were there twice."""
    path = tmp_path / "run"
    begin(path, job(mlflow=database), stop_at=17)
    (stopped,) = mlflow_runs(database)
    assert stopped.info.status == "KILLED"
    go_on(place_of(path, 10), stages=3)
    (found,) = mlflow_runs(database)
    assert (found.info.run_id, found.info.status) == (stopped.info.run_id, "FINISHED")
    assert in_mlflow(database, found.info.run_id) == rows_of(path)
    go_on(path, ["training.epochs=3"])
    (found,) = mlflow_runs(database)
    assert in_mlflow(database, found.info.run_id) == rows_of(path)
    assert max(in_mlflow(database, found.info.run_id)["train/loss"]) == 42
    assert found.data.tags[f"pipetrain.after_step_{STEPS}"] == "training.epochs: 2 → 3"


def test_steps_that_may_differ_are_never_mixed_with_those_of_before(tmp_path: Path, database: str) -> None:
    """MLflow cannot forget a point, so a new run begins, with the steps that stay."""
    path = tmp_path / "run"
    begin(path, job(mlflow=database), stop_at=17)
    go_on(place_of(path, 10), ["training.optimizer.sgd.learning_rate=0.01"])
    first, second = mlflow_runs(database)
    assert (first.info.status, second.info.status) == ("KILLED", "FINISHED")
    assert second.data.params["training.optimizer.sgd.learning_rate"] == "0.01"
    assert in_mlflow(database, second.info.run_id) == rows_of(path)
    before, after = (in_mlflow(database, run.info.run_id)["train/loss"] for run in (first, second))
    assert [before[step] == after[step] for step in (10, 11, 12)] == [True, True, False]


def test_a_tracker_that_comes_later_gets_all_rows(tmp_path: Path, database: str) -> None:
    path = tmp_path / "run"
    begin(path, job(), stop_at=8)
    found = find_checkpoint(path, lambda line: None)
    spec = parse_job({**found.spec(()).document(), "tracking": {"mlflow": database, "tensorboard": True}})
    _perform(Run.prepare(spec, LOCAL, resume=found), RunDir.resume(path, spec, found.manifest.position), None)
    (run,) = mlflow_runs(database)
    assert in_mlflow(database, run.info.run_id) == rows_of(path)
    assert in_tensorboard(path / "tensorboard") == near(rows_of(path))


@pytest.mark.parametrize("forget", ["deleted", "another database"])
def test_a_run_that_is_not_there_any_more_is_begun_again(
    tmp_path: Path, database: str, empty: Path, forget: str
) -> None:
    from mlflow.tracking import MlflowClient

    path = tmp_path / "run"
    begin(path, job(mlflow=database), stop_at=8)
    if forget == "deleted":
        MlflowClient(tracking_uri=database).delete_run(mlflow_runs(database)[0].info.run_id)
    else:
        shutil.copy(empty, tmp_path / "mlflow.db")
    go_on(path)
    (found,) = mlflow_runs(database)
    assert in_mlflow(database, found.info.run_id) == rows_of(path)


def test_overwriting_a_run_begins_another_at_its_trackers(tmp_path: Path, database: str) -> None:
    spec, path = job(mlflow=database, tensorboard=str(tmp_path / "logs")), tmp_path / "run"
    begin(path, spec, stop_at=8)
    run = Run.prepare(spec, LOCAL)
    _perform(run, RunDir.create(path, run.spec, overwrite=True), 5)
    assert len(mlflow_runs(database)) == 2
    assert sorted(entry.name for entry in (tmp_path / "logs").iterdir()) == ["run", "run-2"]


def test_a_run_that_is_ended_by_sigterm_is_not_left_running_at_its_tracker(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SkyRL#1516: after SIGTERM a tracker's run was RUNNING for ever."""
    path, show = tmp_path / "run", RunDisplay.row
    (tmp_path / "job.yaml").write_text(job(mlflow=database).to_yaml())

    def end_at_step_7(display: RunDisplay, row: Any) -> None:
        show(display, row)
        if row.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RunDisplay, "row", end_at_step_7)
        done = pipetrain_here("train", tmp_path / "job.yaml", "--local", "--run-dir", path)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    (found,) = mlflow_runs(database)
    assert found.info.status == "KILLED"
    assert 7 <= len(in_mlflow(database, found.info.run_id)["train/loss"]) < STEPS
    assert pipetrain_here("resume", path, "--local").returncode == 0
    (found,) = mlflow_runs(database)
    assert found.info.status == "FINISHED"
    assert in_mlflow(database, found.info.run_id) == rows_of(path)
